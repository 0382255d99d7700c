"""Fetching works from a server without OAI-PMH: pages by number, as ``https://thesis.eur.nl/pub/<id>``.

The server's robots.txt decides which pages may be asked for, and no more than one request a second goes out.
What a page says for search engines (``citation_*`` and ``dc.*``) is read as a record in Dublin Core; access,
embargo and licence are decided on as for any other record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from urllib.parse import urljoin
from urllib.robotparser import RobotFileParser

from data_prep.download import Page
from data_prep.dublin_core import describe, embargo_end
from data_prep.oai_harvest import Harvest
from data_prep.web import Refused

NUMBER = "<id>"
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


class PagesHarvest(Harvest):
    """One source's pass over its pages; known pages are not asked for again."""

    def run(self, done: Counter[str], log: Callable[[str], None]) -> None:
        """Ask for every page from the first number, until `last_id` or a long gap.

        Raises:
            Unreachable: the server does not answer.
        """
        state, missing = self._state(), 0
        robots = self._robots()
        number = max(self.source.first_id, state.get("next", 0))
        for identifier in self._due():
            done[self._page(identifier, robots)] += 1
        while missing < GAP and (self.source.last_id is None or number <= self.source.last_id):
            decision = self._page(f"{self.source.name}:{number}", robots)
            missing = missing + 1 if decision == "not_there" else 0
            if not missing:
                done[decision] += 1
            number += 1
            if not missing:
                self._save({**state, "next": number, "page": 0})
                log(f"harvest {self.source.name}: page {number - 1}, {sum(done.values())} records")

    def _due(self) -> list[str]:
        """Pages whose refusal may be over."""
        return [
            identifier
            for identifier, entry in self.journal.known.items()
            if entry.get("source") == self.source.name and self._may_be_had_now(entry)
        ]

    def _robots(self) -> RobotFileParser:
        rules = RobotFileParser()
        try:
            answer = self.lists.get(urljoin(self.source.url, "/robots.txt"))
            rules.parse(answer.text.splitlines())
        except Refused:  # there is none, so that everything is allowed
            rules.parse([])
        return rules

    def _page(self, identifier: str, robots: RobotFileParser) -> str:
        """Decide on one page, fetch its file, journal it; returns the decision."""
        address = self.source.url.replace(NUMBER, identifier.rpartition(":")[2])
        entry = {"id": identifier, "source": self.source.name, "datestamp": self.today}
        metadata: dict[str, list[str]] = {}
        try:
            if identifier in self.tombstones:
                raise Refused("taken_down")
            if not robots.can_fetch(self.config.user_agent, address):
                raise Refused("robots_txt")
            page = Page.read(self.lists.get(address).text)
            metadata = {
                name: [value for key in keys for value in page.values.get(key, [])]
                for name, keys in FIELDS.items()
            }
            entry |= describe(metadata, self.source)
            if not page.file:
                raise Refused("no_file")
            target = urljoin(address, page.file)
            if not robots.can_fetch(self.config.user_agent, target):
                raise Refused("robots_txt")
            entry |= self._fetch(identifier, [target])
        except Refused as refusal:
            if refusal.reason in ("http_404", "http_410") and identifier not in self.journal.known:
                return "not_there"
            if refusal.reason == "embargo":
                entry["embargo"] = embargo_end(metadata)
            self._reject(entry, refusal.reason)
            return refusal.reason
        self.journal.decide({**entry, "status": "kept"})
        return "kept"
