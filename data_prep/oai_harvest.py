"""One source's pass over an OAI-PMH server: ListRecords, page by page, resumed where it stopped.

Only open-access works whose embargo is over are kept; the others are recorded with the reason. A pass ends
with records that no server would list again: those whose embargo has ended since, and those whose file could
not be had. Other settings of a source list everything again: what they refused before is decided on anew, and
what they no longer allow is deleted.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from oaipmh_scythe.exceptions import BadResumptionToken
from oaipmh_scythe.models import Record

from conf.schema.preprocess import HarvestConfig, HarvestSource
from data_prep import files
from data_prep.download import download
from data_prep.dublin_core import LONGEST, addresses, describe, embargo_end, names
from data_prep.journal import HARVESTED, Journal
from data_prep.listing import Listing
from data_prep.oai import Damaged, ask
from data_prep.opt_out import REASON as OPT_OUT
from data_prep.robots import Robots
from data_prep.web import Pace, Refused, Unreachable, Web

STATE_FILE = "harvest.json"
UNREACHABLE = "unreachable"  # the reason of a file that its server does not give out just now
RECORD_DAMAGED = "record_damaged"
NO_METADATA = "no_metadata"  # of a page that says nothing about a work
HTTP = "http_"  # begins the reason of a file that was refused with that status, as while it is being moved
# Reasons of a file that may be there another day: a page in its place, a type that is wrong, an odd address.
PASSING = (
    "no_file",
    "unknown_type",
    "bad_address",
    "answer_compressed",
    "too_many_redirects",
    RECORD_DAMAGED,
    NO_METADATA,
    "robots_txt",
)
PAGES_PER_SECOND = 1.0  # of a server that has no interface for harvesters
SILENT = 3  # files one after another that cannot be had before the server counts as down
PATIENCE = 30  # days after which what may pass is asked for again
RESTARTS = 3  # of a pass whose resumption tokens its server does not know any more


class Harvest:
    """One source's pass over its records."""

    def __init__(
        self,
        root: Path,
        source: HarvestSource,
        config: HarvestConfig,
        tombstones: set[str],
        opted_out: Callable[[str, list[str]], bool] = lambda identifier, names: False,
    ) -> None:
        """Read where the last pass stopped.

        Args:
            root: the corpus folder.
            source: the server.
            config: of all servers.
            tombstones: ids and sha256 of works that were taken down.
            opted_out: whether a work, by its id and its other names, may not be used.
        """
        self.root, self.source, self.config, self.tombstones = root, source, config, tombstones
        self.opted_out = opted_out
        hosts = {urlsplit(source.url).netloc, *source.hosts}
        most = PAGES_PER_SECOND if source.kind == "pages" else config.requests_per_second
        pace = Pace(min(config.requests_per_second, most))
        self.lists, self.downloads = (
            Web(
                hosts,
                limit,
                config.timeout_seconds,
                config.retries,
                pace,
                config.user_agent,
            )
            for limit in (config.max_answer_mb, config.max_file_mb)
        )
        self.robots = Robots(self.lists, config.user_agent)
        if source.robots:
            self.downloads.allows = self.robots.allow
        decisive = [source.prefix, sorted(hosts), source.assume_open, config.max_file_mb]
        decisive += [] if source.robots else ["no robots.txt"]
        self.settings = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]
        self.journal = Journal(root)
        self.today = datetime.datetime.now(datetime.UTC).date().isoformat()
        self.seen: set[str] = set()
        self.silent = 0

    def run(self, done: Counter[str], log: Callable[[str], None]) -> None:
        """Fetch every page; each is journalled before the next is asked for.

        Raises:
            Damaged: a page cannot be used; the message names source, page and reason.
            Unreachable: the server does not answer.
        """
        state = self._state()
        state.setdefault("started", self.today)  # of the pass, which may have begun days ago
        try:
            self._list(state, done, log)
        except (Damaged, Refused) as reason:
            page = f"page {state['page'] + 1}"
            self._save({**state, "trouble": f"{page}: {reason}"})
            raise Damaged(
                f"{self.source.name}, {page} of {self.source.url} cannot be used ({reason})"
            ) from reason
        started = state.pop("started")
        if not (self.config.from_date or self.config.until_date):
            state["from"] = started  # the next pass asks for what changed since this one began
        self._save({**state, "page": 0, "listed": 0, "size": None})
        for identifier in self._unlisted():
            self.silent = 0  # what could not be had before is no sign that the server is down
            done[self._again(identifier)] += 1

    def _list(self, state: dict, done: Counter[str], log: Callable[[str], None]) -> None:
        """The pages of a pass, from where the state says; the state goes along."""
        query, restarts, listing = (
            self._next_query(state),
            0,
            Listing(state.get("listed", 0), state.get("size")),
        )
        while query is not None:
            try:
                answer = ask(self.lists, self.source.url, query)
            except BadResumptionToken:  # expired: begin the pass again, known records are passed over
                restarts += 1
                if "resumptionToken" not in query or restarts > RESTARTS:
                    raise Damaged("bad_resumption_token") from None
                state.update(token=None, page=0, listed=0, size=None)
                query, listing = self._next_query(state), Listing()
                continue
            listing.add(answer)
            for record in answer.records:
                done[self._take(record)] += 1
            for identifier in answer.lost:
                done[self._set_aside(identifier)] += 1
            if answer.mended:
                done["page_mended"] += 1
            state.update(token=answer.token, page=state["page"] + 1, listed=listing.listed, size=listing.size)
            log(f"harvest {self.source.name}: page {state['page']}, {sum(done.values())} records")
            self._save(state)
            query = self._next_query(state) if answer.token else None

    def _set_aside(self, identifier: str) -> str:
        """Journal a record that is no XML; it is asked for by name when its time comes."""
        name = f"{self.source.name}:{identifier[:LONGEST]}"
        if identifier and self.journal.known.get(name, {}).get("status") != "kept":
            self._reject({"id": name, "source": self.source.name}, RECORD_DAMAGED)
        return RECORD_DAMAGED

    def _reject(self, entry: dict, reason: str) -> None:
        """Journal a refusal with its reason, and when to look again where it may pass."""
        entry = {
            **entry,
            "status": "rejected",
            "reason": reason,
            "settings": self.settings,
            "tried": self.today,
        }
        if may_pass(reason):
            again = datetime.date.fromisoformat(self.today) + datetime.timedelta(PATIENCE)
            entry["again"] = again.isoformat()
        self.journal.decide(entry)

    def _unlisted(self) -> list[str]:
        """Records to ask for by name: they may be had by now, and nothing makes their server list them."""
        return [
            identifier
            for identifier, entry in self.journal.known.items()
            if identifier not in self.seen
            and entry.get("source") == self.source.name
            and self._may_be_had_now(entry)
        ]

    def _may_be_had_now(self, entry: dict) -> bool:
        """Whether what a record was refused for may be over."""
        reason = str(entry.get("reason"))
        if reason == "embargo":
            return (entry.get("embargo") or "9999") <= self.today
        last = datetime.date.fromisoformat(self.today) - datetime.timedelta(PATIENCE)
        due = entry.get("tried", "") <= last.isoformat() or entry.get("again", "9999") <= self.today
        if reason == OPT_OUT:
            return not self.opted_out(entry["id"], entry.get("addresses") or [])
        return reason == UNREACHABLE or (may_pass(reason) and due)

    def _again(self, identifier: str) -> str:
        """Ask for one record by name and decide on it anew; returns the decision."""
        name = identifier.removeprefix(f"{self.source.name}:")
        query = {"verb": "GetRecord", "metadataPrefix": self.source.prefix, "identifier": name}
        try:
            records = ask(self.lists, self.source.url, query).records
        except (Damaged, Refused) as refusal:
            return refusal.reason
        return self._take(records[0]) if records else "not_there"

    def _state(self) -> dict:
        """Where the last pass stopped; of another server, format, set or settings nothing is known."""
        path = self.root / STATE_FILE
        state = (
            json.loads(path.read_text(encoding="utf-8")).get(self.source.name, {}) if path.exists() else {}
        )
        selection = [self.source.url, self.source.prefix, self.source.set, self.settings]
        dates = [self.config.from_date, self.config.until_date]
        if state.get("selection") != selection:
            state = {}
        if state.get("dates") != dates:  # the token and the start are of a pass over other dates
            state = {key: state[key] for key in ("from",) if key in state}
        state.pop("trouble", None)
        return {"page": 0, **state, "selection": selection, "dates": dates}

    def _save(self, state: dict) -> None:
        path = self.root / STATE_FILE
        every = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        every[self.source.name] = state
        files.write(path, json.dumps(every, indent=1))

    def _next_query(self, state: dict) -> dict[str, str]:
        if state.get("token"):
            return {"verb": "ListRecords", "resumptionToken": state["token"]}
        query = {"verb": "ListRecords", "metadataPrefix": self.source.prefix}
        if since := self.config.from_date or state.get("from"):
            query["from"] = since
        if self.config.until_date:
            query["until"] = self.config.until_date
        if self.source.set:
            query["set"] = self.source.set
        return query

    def _take(self, record: Record) -> str:
        """Decide on one record, fetch its file, journal it; returns the decision."""
        oai_id = (record.header.identifier or "").strip()[:LONGEST]
        identifier = f"{self.source.name}:{oai_id}"
        stamp = (record.header.datestamp or "").strip()
        known = self.journal.known.get(identifier)
        entry = {"id": identifier, "source": self.source.name, "datestamp": stamp}
        named = names(record.metadata) if not record.deleted else []
        entry |= {"addresses": named} if named else {}
        if record.deleted:
            self.journal.decide({**entry, "status": "deleted", "reason": "deleted_at_source"})
            return "deleted"
        if known and known.get("datestamp") == stamp and self._still_holds(known, record.metadata):
            return "unchanged"
        self.seen.add(identifier)
        try:
            if identifier in self.tombstones:
                raise Refused("taken_down")
            if self.opted_out(identifier, [*named, *addresses(record.metadata)]):
                raise Refused(OPT_OUT)
            entry |= describe(record.metadata, self.source)
            entry |= self._fetch(identifier, addresses(record.metadata))
        except Refused as refusal:
            self.silent = 0
            if refusal.reason == "embargo":
                entry["embargo"] = embargo_end(record.metadata)
            self._reject(entry, refusal.reason)
            return refusal.reason
        except Unreachable:
            if self._gives_up(entry):
                raise
            return UNREACHABLE
        self.silent = 0
        self.journal.decide({**entry, "status": "kept"})
        return "kept"

    def _gives_up(self, entry: dict) -> bool:
        """Journal a work that its server does not give out just now; whether the server counts as down."""
        known = self.journal.known.get(entry["id"])
        earlier = known if known and known["status"] == "kept" else {**entry, "status": "rejected"}
        self.journal.decide({**earlier, "reason": UNREACHABLE})
        if not known or known.get("reason") != UNREACHABLE:  # one that fails again says nothing new
            self.silent += 1
        return self.silent >= SILENT

    def _still_holds(self, known: dict, metadata: dict) -> bool:
        """Whether an unchanged record needs no second look."""
        if known["status"] != "kept":
            reason = known.get("reason") or ""
            passing = reason in ("embargo", UNREACHABLE, OPT_OUT) or may_pass(reason)
            return known.get("settings") == self.settings and not passing
        if self.opted_out(known["id"], [*names(metadata), *addresses(metadata)]):
            return False
        try:
            describe(metadata, self.source)
        except Refused:  # it was kept under other settings or rules
            return False
        return self.journal.has_file(known)

    def _fetch(self, identifier: str, urls: Iterable[str]) -> dict:
        """Download a record's PDF or text; returns its file, address and sha256."""
        url, data, suffix = download(self.downloads, urls)
        digest = hashlib.sha256(data).hexdigest()
        if digest in self.tombstones:
            raise Refused("taken_down")
        name = hashlib.sha256(identifier.encode()).hexdigest()[:24]
        path = Path(HARVESTED) / name[:2] / f"{name}{suffix}"
        (self.root / path.parent).mkdir(parents=True, exist_ok=True, mode=0o700)
        files.write(self.root / path, data)
        asked = {"robots": "allowed"} if self.downloads.allows is not None else {}
        return {"file": path.as_posix(), "url": url, "sha256": digest, **asked}


def may_pass(reason: str) -> bool:
    """Whether another day may bring what was refused for this reason."""
    return reason in PASSING or reason.startswith(HTTP)
