"""Fetching works from a server without OAI-PMH: pages by number, as ``https://thesis.eur.nl/pub/<id>``.

The server's robots.txt decides which pages may be asked for, and no more than one request a second goes out.
What a page says for search engines (``citation_*`` and ``dc.*``) is read as a record in Dublin Core; access,
embargo and licence are decided on as for any other record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from urllib.parse import urljoin

import httpx2

from data_prep.download import Page
from data_prep.dublin_core import describe, embargo_end, names
from data_prep.oai import Damaged
from data_prep.oai_harvest import NO_METADATA, UNREACHABLE, Harvest
from data_prep.opt_out import REASON as OPT_OUT
from data_prep.web import Refused, Unreachable

NUMBER = "<id>"
NOT_THERE = "not_there"
GAP = 200  # numbers without a page, one after another, behind which no more are expected
FIELDS = {
    "title": ("citation_title", "dc.title", "og:title"),
    "date": (
        "citation_publication_date",
        "citation_date",
        "citation_online_date",
        "dc.date",
        "dcterms.issued",
    ),
    "language": ("citation_language", "dc.language"),
    "rights": (
        "dc.rights",
        "dcterms.rights",
        "dcterms.accessrights",
        "dc.rights.license",
        "citation_license",
    ),
}
NAMES = ("citation_doi", "dc.identifier", "dc.identifier.doi", "dc.identifier.uri", "citation_handle")


class PagesHarvest(Harvest):
    """One source's pass over its pages; known pages are not asked for again."""

    def run(self, done: Counter[str], log: Callable[[str], None]) -> None:
        """Ask for every page from the first number, until `last_id` or a long gap.

        A page that is no work's (none, an empty one with status 200, a forbidden one) is a part of a gap.

        Raises:
            Damaged: nothing but refusals to the end of a gap, so that nobody knows whether works follow.
            Unreachable: the server does not answer.
        """
        state, gap, decision = self._state(), 0, NOT_THERE
        self.downloads.allows = self.robots.allow
        number = max(self.source.first_id, state.get("next", 0))
        for identifier in self._due():
            done[self._page(identifier)[0]] += 1
        held: list[tuple[dict, str]] = []  # pages of the gap, which are journalled when a work follows
        while gap < GAP and (self.source.last_id is None or number <= self.source.last_id):
            decision, refused = self._page(f"{self.source.name}:{number}")
            gap = gap + 1 if refused else 0
            number += 1
            if decision != NOT_THERE:
                done[decision] += 1
                held += [(refused, decision)] if refused else []
            if not refused:
                self._reject_all(held)
                self._save({**state, "next": number, "page": 0})
                log(f"harvest {self.source.name}: page {number - 1}, {sum(done.values())} records")
        if gap < GAP:  # the last number was given, so that all before it are the source's
            self._reject_all(held)
        elif decision not in (NOT_THERE, NO_METADATA):
            raise Damaged(f"{self.source.name}, {GAP} pages one after another cannot be used ({decision})")

    def _reject_all(self, held: list[tuple[dict, str]]) -> None:
        for entry, reason in held:
            self._reject(entry, reason)
        held.clear()

    def _due(self) -> list[str]:
        """Pages whose refusal may be over."""
        return [
            identifier
            for identifier, entry in self.journal.known.items()
            if entry.get("source") == self.source.name and self._may_be_had_now(entry)
        ]

    def _page(self, identifier: str) -> tuple[str, dict]:
        """Decide on one page, fetch its file, journal it.

        Returns:
            The decision; and, where the page is no work's and was not known, its entry for the journal.
        """
        known = self.journal.known.get(identifier)
        address = self.source.url.replace(NUMBER, identifier.rpartition(":")[2])
        entry = {"id": identifier, "source": self.source.name, "datestamp": self.today}
        metadata: dict[str, list[str]] = {}
        try:
            metadata, file = self._read(identifier, address)
            entry |= {"addresses": found} if (found := names(metadata)) else {}
            if self.opted_out(identifier, [address, *names(metadata)]):
                raise Refused(OPT_OUT)
            entry |= describe(metadata, self.source)
            if not file:
                raise Refused("no_file")
            entry |= self._fetch(identifier, [urljoin(address, file)])
        except Refused as refusal:
            self.silent = 0
            if not metadata and not known:
                return NOT_THERE if refusal.reason in ("http_404", "http_410") else refusal.reason, entry
            if refusal.reason == "embargo":
                entry["embargo"] = embargo_end(metadata)
            self._reject(entry, refusal.reason)
            return refusal.reason, {}
        except Unreachable:
            if self._gives_up(entry):
                raise
            return UNREACHABLE, {}
        self.silent = 0
        self.journal.decide({**entry, "status": "kept"})
        return "kept", {}

    def _read(self, identifier: str, address: str) -> tuple[dict[str, list[str]], str]:
        """What a page says about its work, and the address of the file or "".

        Raises:
            Refused: the page is no work's, or may not be asked for.
            Unreachable: no answer.
        """
        if identifier in self.tombstones:
            raise Refused("taken_down")
        if not self.robots.allow(address):
            raise Refused("robots_txt")
        try:
            page = Page.read(self.lists.get(address).text)
        except (ValueError, AssertionError, httpx2.InvalidURL) as error:  # a page that cannot be read
            raise Refused("bad_address") from error
        fields = {
            name: [value for key in keys for value in page.values.get(key, []) if value]
            for name, keys in FIELDS.items()
        }
        if not (page.file or any(fields.values())):
            raise Refused(NO_METADATA)
        named = [value for key in NAMES for value in page.values.get(key, []) if value]
        return {**fields, "identifier": named}, page.file
