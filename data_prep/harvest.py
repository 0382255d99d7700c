"""Fetching works from OAI-PMH servers: ListRecords, page by page, resumed where it stopped.

Everything lies in the corpus folder: ``records.jsonl``, a journal with one line per record and decision, of
which the last line on an id holds; ``files/``, named by hash and never by the server; ``harvest.json``, where
each source stands. The protocol's requests go through oaipmh-scythe (BSD-3-Clause). Only open-access works
whose embargo is over are kept; the others are recorded with the reason.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from lxml import etree
from oaipmh_scythe import Scythe
from oaipmh_scythe.config import HTTPConfig
from oaipmh_scythe.exceptions import BadResumptionToken, NoRecordsMatch, OAIPMHException
from oaipmh_scythe.models import Record

from data_prep.config import CorpusConfig, HarvestConfig, HarvestSource
from data_prep.errors import InputError
from data_prep.raw import RECORDS_FILE, read_journal
from data_prep.web import Refused, Unreachable, Web

STATE_FILE = "harvest.json"
OAI = "{http://www.openarchives.org/OAI/2.0/}"
PARSER = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
EMBARGO = re.compile(r"embargoEnd/(\d{4}-\d{2}-\d{2})")
CLOSED = re.compile(r"(closed|restricted|metadata ?only)\s*access", re.I)
OPEN = re.compile(r"open\s*access|creativecommons\.org/(licenses|publicdomain)|\bCC[ -]BY|\bCC0\b", re.I)
LANGUAGES = {"nl": "nl", "dut": "nl", "nld": "nl", "en": "en", "eng": "en"}
LONGEST = 500  # characters of a title or another field that is kept


class Damaged(Exception):
    """A page of records that cannot be used; the message is the reason."""


def harvest(corpus: CorpusConfig, tombstones: set[str], say: Callable[[str], None]) -> Counter[str]:
    """Bring the corpus folder up to date with its servers.

    Args:
        corpus: the folder and the sources.
        tombstones: ids and sha256 of works that may not come back.
        say: told one line per page.

    Returns:
        Decisions of this call: ``kept``, ``unchanged``, ``deleted`` and the reasons of rejections.

    Raises:
        InputError: a server could not be reached; what was fetched stays and the same command goes on.
    """
    root = corpus.folder()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    done: Counter[str] = Counter()
    for source in corpus.harvest.sources:
        try:
            Harvest(root, source, corpus.harvest, tombstones).run(done, say)
        except Unreachable as error:
            raise InputError(
                f"corpus.harvest.sources: {source.url} does not answer ({error}); give the same command "
                "again to go on, or set corpus.harvest.enabled=false to build from what is there."
            ) from error
    return done


class Harvest:
    """One source's pass over its records."""

    def __init__(
        self, root: Path, source: HarvestSource, config: HarvestConfig, tombstones: set[str]
    ) -> None:
        """Read where the last pass stopped."""
        self.root, self.source, self.config, self.tombstones = root, source, config, tombstones
        hosts = {urlsplit(source.url).netloc, *source.hosts}
        self.lists, self.files = (
            Web(
                hosts,
                limit,
                config.timeout_seconds,
                config.retries,
                config.requests_per_second,
                config.user_agent,
            )
            for limit in (config.max_answer_mb, config.max_file_mb)
        )
        self.known = read_journal(root)

    def run(self, done: Counter[str], say: Callable[[str], None]) -> None:
        """Fetch every page; each is journalled before the next is asked for."""
        state = self._state()
        started = datetime.datetime.now(datetime.UTC).date().isoformat()
        query = self._resume(state)
        page = 0
        try:
            while query is not None:
                try:
                    records, token = self._page(query)
                except BadResumptionToken:  # expired: begin the pass again, known records are passed over
                    if "resumptionToken" not in query:
                        raise Damaged("bad_resumption_token") from None
                    query = self._first_query(state)
                    continue
                for record in records:
                    done[self._take(record)] += 1
                page += 1
                say(f"harvest {self.source.name}: page {page}, {sum(done.values())} records")
                self._save({**state, "token": token})
                query = {"verb": "ListRecords", "resumptionToken": token} if token else None
        except (Damaged, Refused) as reason:
            identifier = f"{self.source.name}: page {page + 1}"
            self._journal({"id": identifier, "status": "rejected", "reason": str(reason)})
            done[str(reason)] += 1
            say(f"harvest {self.source.name}: stopped at page {page + 1}: {reason}")
            return
        if not self.config.until_date:
            state["from"] = started  # the next pass asks for what changed since this one began
        self._save({**state, "token": None})

    def _state(self) -> dict:
        path = self.root / STATE_FILE
        return json.loads(path.read_text()).get(self.source.name, {}) if path.exists() else {}

    def _save(self, state: dict) -> None:
        path = self.root / STATE_FILE
        every = json.loads(path.read_text()) if path.exists() else {}
        every[self.source.name] = state
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(every, indent=1))
        temporary.replace(path)

    def _resume(self, state: dict) -> dict[str, str]:
        if state.get("token"):
            return {"verb": "ListRecords", "resumptionToken": state["token"]}
        return self._first_query(state)

    def _first_query(self, state: dict) -> dict[str, str]:
        query = {"verb": "ListRecords", "metadataPrefix": self.source.prefix}
        if since := self.config.from_date or state.get("from"):
            query["from"] = since
        if self.config.until_date:
            query["until"] = self.config.until_date
        if self.source.set:
            query["set"] = self.source.set
        return query

    def _page(self, query: dict[str, str]) -> tuple[list[Record], str | None]:
        """One answer's records and the token of the next."""
        with _Scythe(self.source.url, self.lists) as scythe:
            try:
                answer = self.lists.attempt(lambda: scythe.harvest(query))
            except NoRecordsMatch:
                return [], None
            except BadResumptionToken:
                raise
            except OAIPMHException as error:
                raise Damaged(f"oai_{type(error).__name__}") from error
        content = answer.http_response.content
        if b"<!DOCTYPE" in content[:4096] or b"<!ENTITY" in content:
            raise Damaged("xml_with_entities")
        try:
            root = etree.fromstring(content, PARSER)
        except etree.XMLSyntaxError as error:
            raise Damaged("xml_damaged") from error
        records = [
            Record(item) for item in root.iter(f"{OAI}record") if item.find(f"{OAI}header") is not None
        ]
        token = root.find(f".//{OAI}resumptionToken")
        text = (token.text or "").strip() if token is not None else ""
        if text and text == query.get("resumptionToken") and not records:
            raise Damaged("endless_list")
        return records, text or None

    def _take(self, record: Record) -> str:
        """Decide on one record, fetch its file, journal it; returns the decision."""
        oai_id = (record.header.identifier or "").strip()[:LONGEST]
        identifier = f"{self.source.name}:{oai_id}"
        stamp = (record.header.datestamp or "").strip()
        known = self.known.get(identifier)
        entry = {"id": identifier, "source": self.source.name, "datestamp": stamp}
        if record.deleted:
            if known and known.get("file"):
                (self.root / known["file"]).unlink(missing_ok=True)
            self._journal({**entry, "status": "deleted", "reason": "deleted_at_source"})
            return "deleted"
        if known and known.get("datestamp") == stamp and _still_holds(known, self.root):
            return "unchanged"
        try:
            if identifier in self.tombstones:
                raise Refused("taken_down")
            entry |= describe(record.metadata, self.source)
            entry |= self._fetch(identifier, record.metadata)
        except Refused as reason:
            self._journal({**entry, "status": "rejected", "reason": str(reason)})
            return str(reason)
        self._journal({**entry, "status": "kept"})
        return "kept"

    def _fetch(self, identifier: str, metadata: dict) -> dict:
        """Download a record's PDF or text; returns its file, address and sha256."""
        reason = Refused("no_file")
        for url in _addresses(metadata):
            try:
                url, data, suffix = self._file(url)
            except Refused as error:
                reason = error
                continue
            digest = hashlib.sha256(data).hexdigest()
            if digest in self.tombstones:
                raise Refused("taken_down")
            name = hashlib.sha256(identifier.encode()).hexdigest()[:24]
            path = Path("files") / name[:2] / f"{name}{suffix}"
            (self.root / path.parent).mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = self.root / path.with_suffix(".part")
            temporary.write_bytes(data)
            temporary.replace(self.root / path)
            return {"file": path.as_posix(), "url": url, "sha256": digest}
        raise reason

    def _file(self, url: str) -> tuple[str, bytes, str]:
        """(address, bytes, suffix) of a file, also by way of the page that describes it."""
        for _ in range(2):
            response = self.files.get(url)
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

    def _journal(self, entry: dict) -> None:
        self.known[entry["id"]] = entry
        with (self.root / RECORDS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


class _Scythe(Scythe):
    """Scythe on the bounded client; retries and the rate limit are `Web.attempt`'s."""

    def __init__(self, url: str, web: Web) -> None:
        super().__init__(url, http_config=HTTPConfig())
        self._web = web

    @property
    def client(self):
        return self._web.client

    def close(self) -> None:
        """The client lives on; it belongs to the harvest."""


class _Page(HTMLParser):
    """Finds the address of the PDF that a repository's page names for search engines."""

    pdf = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "meta" and values.get("name") == "citation_pdf_url":
            self.pdf = self.pdf or (values.get("content") or "")


def _still_holds(known: dict, root: Path) -> bool:
    """Whether an unchanged record needs no second look: its file is there, or it was refused for good."""
    if known["status"] == "kept":
        return (root / known["file"]).exists()
    return known.get("reason") not in ("embargo",)  # an embargo ends without a new datestamp


def describe(metadata: dict, source: HarvestSource, today: datetime.date | None = None) -> dict:
    """Title, year, language and licence of a Dublin Core record, if it may be used. Creators are not kept.

    Raises:
        Refused: ``embargo``, ``closed_access`` or ``access_unknown``.
    """
    today = today or datetime.datetime.now(datetime.UTC).date()
    rights = " | ".join(_values(metadata, "rights") + _values(metadata, "accessRights"))
    ends = [end for value in [rights, *_values(metadata, "date")] for end in EMBARGO.findall(value)]
    if any(end > today.isoformat() for end in ends):
        raise Refused("embargo")
    if re.search(r"embargoed\s*access", rights, re.I) and not ends:
        raise Refused("embargo")
    if CLOSED.search(rights):
        raise Refused("closed_access")
    if not (OPEN.search(rights) or ends or source.assume_open):
        raise Refused("access_unknown")
    years = [
        int(year) for value in _values(metadata, "date") for year in re.findall(r"\b(?:19|20)\d\d\b", value)
    ]
    languages = [
        LANGUAGES.get(value.lower().strip()[:3].rstrip("-_")) for value in _values(metadata, "language")
    ]
    licence = re.search(
        r"https?://creativecommons\.org/[\w/.-]+|\bCC[ -]BY[\w.-]*(?: \d\.\d)?|\bCC0\b", rights
    )
    return {
        "title": next(iter(_values(metadata, "title")), ""),
        "year": min(years) if years else None,
        "language": next(filter(None, languages), None),
        "licence": licence[0] if licence else "open access, all rights reserved",
        "embargo": max(ends) if ends else None,
    }


def _values(metadata: dict, name: str) -> list[str]:
    return [
        str(value).strip()[:LONGEST] for value in metadata.get(name) or [] if value and str(value).strip()
    ]


def _addresses(metadata: dict) -> Iterator[str]:
    """The web addresses of a record, those that end like a file first."""
    found = [value for name in ("identifier", "relation", "source") for value in _values(metadata, name)]
    found = [value for value in found if re.match(r"https?://", value)]
    yield from sorted(dict.fromkeys(found), key=lambda url: not url.lower().endswith((".pdf", ".txt")))
