"""One OAI-PMH answer: asked for, checked, and taken apart into its records and the token of the next page.

Records and the protocol's errors are read by oaipmh-scythe (BSD-3-Clause), which sees only sound XML: its own
parser mends what it gets, and a page that is half there would pass for a short one.
"""

from __future__ import annotations

from lxml import etree
from oaipmh_scythe.exceptions import BadResumptionToken, NoRecordsMatch, OAIPMHException
from oaipmh_scythe.models import Record
from oaipmh_scythe.response import OAIResponse

from data_prep.web import Web

OAI = "{http://www.openarchives.org/OAI/2.0/}"
PARSER = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, remove_comments=True)


class Damaged(Exception):
    """An answer that cannot be used.

    Attributes:
        reason: a short word with underscores; the message too.
    """

    def __init__(self, reason: str) -> None:
        """The message of the exception is the reason."""
        super().__init__(reason)
        self.reason = reason


def ask(web: Web, url: str, query: dict[str, str]) -> tuple[list[Record], str | None]:
    """One answer's records and the token of the next, None after the last.

    Raises:
        BadResumptionToken: the server does not know the token any more.
        Damaged: the answer is no sound OAI-PMH, or an error of the protocol.
        Refused, Unreachable: see `Web.attempt`.
    """

    def request() -> etree._Element:
        response = web.client.get(url, params=query)
        try:
            root = _parse(response.content)
        except Damaged:
            response.raise_for_status()  # a busy server's excuse is no XML either, but may be asked again
            raise
        OAIResponse(response, query).raise_for_oaipmh_error()  # some servers send these with a status of 4xx
        response.raise_for_status()
        return root

    try:
        root = web.attempt(request)
    except NoRecordsMatch:
        return [], None
    except BadResumptionToken:
        raise
    except OAIPMHException as error:
        raise Damaged(f"oai_{type(error).__name__}") from error
    records = [_record(item) for item in root.iter(f"{OAI}record") if item.find(f"{OAI}header") is not None]
    token = root.find(f".//{OAI}resumptionToken")
    text = (token.text or "").strip() if token is not None else ""
    if text and text == query.get("resumptionToken") and not records:
        raise Damaged("endless_list")
    return records, text or None


def _parse(content: bytes) -> etree._Element:
    if b"<!DOCTYPE" in content[:4096] or b"<!ENTITY" in content:
        raise Damaged("xml_with_entities")
    try:
        return etree.fromstring(content, PARSER)
    except etree.XMLSyntaxError as error:
        raise Damaged("xml_damaged") from error


def _record(item: etree._Element) -> Record:
    """A record; one whose metadata element is empty has none, over which `Record` would stumble."""
    for metadata in item.findall(f"{OAI}metadata"):
        if not len(metadata):
            item.remove(metadata)
    return Record(item)
