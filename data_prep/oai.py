"""One OAI-PMH answer: asked for, checked, and taken apart into its records and the token of the next page.

An answer is believed only when it is a witness: an ``OAI-PMH`` element of the protocol's namespace that
answers the verb. A maintenance page with status 200 is no empty list. Where one character makes a page no
XML, a second, tolerant look mends it (`mend`), or sets aside the records that cannot be mended.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

import httpx2
from lxml import etree
from oaipmh_scythe.exceptions import BadResumptionToken
from oaipmh_scythe.models import Record

from data_prep.web import REDIRECTS, Refused, Web

OAI = "{http://www.openarchives.org/OAI/2.0/}"
PARSER = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, remove_comments=True)
RECORD_START = re.compile(r"<(\w+:)?record(?:\s[^<>]*)?>")
IDENTIFIER = re.compile(r"<(?:\w+:)?identifier>\s*([^<]{1,500}?)\s*</")
STARTED, ENDED = re.compile(r"<(?:\w+:)?OAI-PMH[\s>]"), re.compile(r"</(?:\w+:)?OAI-PMH>")
END, LONGEST_PREFIX = "OAI-PMH>", 60
ILLEGAL = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
REFERENCE = re.compile(r"&(#x?[0-9a-fA-F]+|\w+)?(;?)")
XML_ENTITIES = ("amp", "lt", "gt", "quot", "apos")


class Damaged(Exception):
    """An answer that cannot be used.

    Attributes:
        reason: a short word with underscores; the message too.
    """

    def __init__(self, reason: str) -> None:
        """The message of the exception is the reason."""
        super().__init__(reason)
        self.reason = reason


@dataclass
class Answer:
    """What a server answered.

    Attributes:
        records: in the order of the answer.
        token: of the next page, None after the last.
        size: records of the whole list, where the server says it.
        mended: whether the answer became XML only at the second look.
        lost: identifiers ("" where there is none) of records that could not be read.
    """

    records: list[Record] = field(default_factory=list)
    token: str | None = None
    size: int | None = None
    mended: bool = False
    lost: list[str] = field(default_factory=list)


def ask(web: Web, url: str, query: dict[str, str]) -> Answer:
    """Ask a server, following redirects on its own hosts.

    Raises:
        BadResumptionToken: the server does not know the token any more.
        Damaged: the answer is no sound XML of the protocol, or says that the question was wrong.
        Refused, Unreachable: see `Web.attempt`.
    """
    answer = Answer()
    root = web.attempt(lambda: _request(web, url, query, answer))
    for error in root.findall(f"{OAI}error"):
        code = error.get("code") or "unknown"
        if code == "badResumptionToken" and "resumptionToken" in query:
            raise BadResumptionToken
        if code == "noRecordsMatch" and "resumptionToken" not in query:
            return answer
        raise Damaged(f"oai_{code[:1].upper()}{code[1:]}")
    body = root.find(f"{OAI}{query['verb']}")
    if body is None:
        raise Damaged(f"no_answer_to_{query['verb']}")
    answer.records = [
        _record(item) for item in body.iter(f"{OAI}record") if item.find(f"{OAI}header") is not None
    ]
    token = body.find(f"{OAI}resumptionToken")
    if token is not None:
        answer.token = (token.text or "").strip() or None
        size = (token.get("completeListSize") or "").strip()
        answer.size = int(size) if size.isdecimal() and len(size) < 12 else None
    return answer


def _request(web: Web, url: str, query: dict[str, str], answer: Answer) -> etree._Element:
    answer.mended, address = False, str(httpx2.URL(url, params=query))
    answer.lost.clear()
    for _ in range(REDIRECTS):
        response = web.client.get(address)
        if not response.has_redirect_location:
            break
        address = urljoin(address, response.headers["location"])
        if not urlsplit(address).query:
            address = str(httpx2.URL(address, params=query))
        web.check_host(address, f"redirect_to_{urlsplit(address).netloc}")
    else:
        raise Refused("too_many_redirects")
    try:
        root = _parse(response.content, answer)
    except Damaged:
        response.raise_for_status()  # a busy server's excuse is no XML either, but may be asked again
        raise
    if root.find(f"{OAI}error") is None:  # some servers send these with a status of 4xx
        response.raise_for_status()
    return root


def _parse(content: bytes, answer: Answer) -> etree._Element:
    if b"<!ENTITY" in content:
        raise Damaged("xml_with_entities")
    try:
        root = etree.fromstring(content, PARSER)
    except etree.XMLSyntaxError as error:
        root = mend(content, answer)
        if root is None:
            raise Damaged("xml_damaged") from error
    if root.tag != f"{OAI}OAI-PMH":
        raise Damaged("not_oai_pmh")
    return root


def mend(content: bytes, answer: Answer) -> etree._Element | None:
    """A page made XML: bytes, characters and references that XML does not have are replaced or left out.

    Records that are still no XML are left out and noted. None for a page that is not there to its end.
    """
    text = (
        content.decode("utf-8", "replace")
        if _is_mostly_utf8(content)
        else content.decode("cp1252", "replace")
    )
    text = _document(text)
    if not text:
        return None
    text = ILLEGAL.sub(" ", REFERENCE.sub(_reference, text))
    answer.mended = True
    try:
        return etree.fromstring(text, PARSER)
    except etree.XMLSyntaxError:
        pass
    head = text[: found.start()] if (found := RECORD_START.search(text)) else text
    names = " ".join(re.findall(r'\sxmlns(?::\w+)?="[^"]*"', head))

    kept, at = [], 0
    for start, end in _records(text):
        kept.append(text[at:start])
        at = end
        try:
            etree.fromstring(f"<x {names}>{text[start:end]}</x>", PARSER)
            kept.append(text[start:end])
        except etree.XMLSyntaxError:
            identifier = IDENTIFIER.search(text, start, end)
            answer.lost.append(html.unescape(identifier[1]) if identifier else "")
    try:
        return etree.fromstring("".join([*kept, text[at:]]), PARSER)
    except etree.XMLSyntaxError:
        return None


def _document(text: str) -> str:
    """The element of the protocol, without what a program wrote before or behind it; "" without its end."""
    start = STARTED.search(text)
    end = ENDED.search(text, max(0, text.rfind(END) - LONGEST_PREFIX))
    return text[start.start() : end.end()] if start and end else ""


def _records(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each record element that has an end; in proportion to the text, whatever it is."""
    at, endless = 0, set()
    while start := RECORD_START.search(text, at):
        close = f"</{start[1] or ''}record>"
        end = -1 if close in endless else text.find(close, start.end())
        at = start.end()
        if end < 0:
            endless.add(close)
        else:
            at = end + len(close)
            yield start.start(), at


def _is_mostly_utf8(content: bytes) -> bool:
    """Whether a page with wrong bytes is UTF-8 with a few of Latin-1, rather than Latin-1 throughout."""
    text = content.decode("utf-8", "replace")
    return text.count("\ufffd") <= sum(not char.isascii() for char in text) / 2


def _reference(match: re.Match[str]) -> str:
    """A reference that XML knows, or the character that HTML means by it, or an ampersand by itself."""
    name, end = match[1], match[2]
    if not name or not end:
        return "&amp;" + match[0][1:]
    if name in XML_ENTITIES:
        return match[0]
    meant = html.unescape(match[0])
    if meant == match[0]:
        return "&amp;" + match[0][1:]
    return html.escape(meant)


def _record(item: etree._Element) -> Record:
    """A record as `Record` can read it: without an empty metadata element, its status in small letters."""
    header = item.find(f"{OAI}header")
    if header is not None and header.get("status"):
        header.set("status", header.get("status", "").strip().lower())  # some servers write "Deleted"
    for metadata in item.findall(f"{OAI}metadata"):
        if not len(metadata):
            item.remove(metadata)
    return Record(item)
