"""From the addresses of a record to its file, a PDF or a text, also by way of the page about the work."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx2

from data_prep.web import Refused, Web

PDF_START = re.compile(rb"(?:\xef\xbb\xbf|\s){0,64}%PDF-")  # also behind a byte order mark or a line break
HTML_START = re.compile(rb"(?:\xef\xbb\xbf|\s){0,64}<(?:!doctype\s+html|html)\b", re.I)
PDF_PATH = re.compile(r"\.pdf(?:$|[?#])", re.I)
META = ("citation_pdf_url", "bepress_citation_pdf_url", "eprints.document_url", "wkhealth_pdf_url")


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
        if PDF_START.match(response.content):
            return url, response.content, ".pdf"
        if kind == "text/plain" and not HTML_START.match(response.content):
            if not response.content.strip():
                raise Refused("no_file")
            return url, response.content, ".txt"
        if kind not in ("text/html", "application/xhtml+xml", "text/plain"):
            raise Refused("unknown_type")
        page = Page.read(response.text)
        item = next((link["url"] for link in response.links.values() if link.get("rel") == "item"), "")
        found = page.file or item
        if not found:
            raise Refused("no_file")
        url = urljoin(url, found)
    raise Refused("no_file")


class Page(HTMLParser):
    """A repository's page about a work.

    Attributes:
        file: the address of its PDF, as the page names it for search engines; the best of several ways.
        values: contents of its ``meta`` elements, by name in small letters.
    """

    def __init__(self) -> None:
        """Nothing is read yet."""
        super().__init__()
        self.values: dict[str, list[str]] = {}
        self._links: list[str] = []
        self._shown: set[str] = set()  # PDFs that the page links to or shows

    @classmethod
    def read(cls, text: str) -> Page:
        """Read a page."""
        page = cls()
        page.feed(text)
        return page

    @property
    def file(self) -> str:
        """The address of the PDF, or ""."""
        named = (value for name in META for value in self.values.get(name, []))
        shown = self._shown if len(self._shown) == 1 else ()  # of several nobody knows which is the work
        return next(iter([*filter(None, named), *self._links, *shown]), "")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: (value or "").strip() for name, value in attrs}
        if tag == "meta" and (name := values.get("name") or values.get("property") or ""):
            self.values.setdefault(name.lower(), []).append(values.get("content", ""))
        target = values.get({"a": "href", "iframe": "src", "embed": "src", "object": "data"}.get(tag, ""), "")
        if PDF_PATH.search(target):
            self._shown.add(target.partition("#")[0])
        rel = values.get("rel", "").lower().split()
        kind = values.get("type", "application/pdf").lower()
        if tag == "link" and ("item" in rel or ("alternate" in rel and "type" in values)) and "pdf" in kind:
            self._links.append(values.get("href", ""))
