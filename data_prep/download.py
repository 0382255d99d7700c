"""From the addresses of a record to its file, a PDF or a text, also by way of the page about the work."""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx2

from data_prep.web import Refused, Web


def download(web: Web, urls: Iterable[str]) -> tuple[str, bytes, str]:
    """The first file that one of the addresses leads to.

    Returns:
        Its address, its bytes, and ``.pdf`` or ``.txt``.

    Raises:
        Refused: none does; the reason is the last address'.
        Unreachable: a server does not answer.
    """
    reason = Refused("no_file")
    for url in urls:
        try:
            return _file(web, url)
        except Refused as error:
            reason = error
        except (ValueError, AssertionError, httpx2.InvalidURL):  # an address or a page that cannot be read
            reason = Refused("bad_address")
    raise reason


def _file(web: Web, url: str) -> tuple[str, bytes, str]:
    for _ in range(2):
        response = web.get(url)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.content[:5] == b"%PDF-":
            return url, response.content, ".pdf"
        if kind == "text/plain":
            return url, response.content, ".txt"
        if kind not in ("text/html", "application/xhtml+xml"):
            raise Refused("unknown_type")
        page = _Page()
        page.feed(response.text)
        if not page.pdf:
            raise Refused("no_file")
        url = urljoin(url, page.pdf)
    raise Refused("no_file")


class _Page(HTMLParser):
    """Finds the address of the PDF that a repository's page names for search engines."""

    pdf = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "meta" and values.get("name") == "citation_pdf_url":
            self.pdf = self.pdf or (values.get("content") or "")
