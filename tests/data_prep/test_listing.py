"""The odd ends of a list: none of them moves ``from``, none of them goes on without end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conf.errors import InputError
from tests.data_prep.oai_server import Entry, Repository, Server, envelope, record
from tests.data_prep.test_harvest import corpus_of, fetch, records, repository

ENOUGH = "".join(f"<x{n}/>" for n in range(3))
ODD_ENDS = {
    "a maintenance page": (b"<html><body>Back soon</body></html>", "not_oai_pmh"),
    "a page that is no XML": (b"<html><br>Back soon & well</html>", "xml_damaged"),
    "another namespace": (
        b'<OAI-PMH xmlns="http://example.org/"><ListRecords/></OAI-PMH>',
        "not_oai_pmh",
    ),
    "no namespace": (b"<OAI-PMH><ListRecords></ListRecords></OAI-PMH>", "not_oai_pmh"),
    "Atom": (b'<feed xmlns="http://www.w3.org/2005/Atom"></feed>', "not_oai_pmh"),
    "an answer to another question": (envelope("<Identify/>").encode(), "no_answer_to_ListRecords"),
    "no records on a token": (
        envelope('<error code="noRecordsMatch">none</error>').encode(),
        "oai_NoRecordsMatch",
    ),
    "an end before its time": (
        envelope('<ListRecords><resumptionToken completeListSize="500"/></ListRecords>').encode(),
        "list_too_short_3_of_500",
    ),
}


def state(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "raw" / "harvest.json").read_text())["test"]


@pytest.mark.parametrize("kind", ODD_ENDS)
def test_an_end_without_a_witness_is_none(tmp_path: Path, kind: str) -> None:
    body, reason = ODD_ENDS[kind]
    with Server(repo := repository()) as server:
        config = corpus_of(tmp_path, server)
        repo.page_bodies = {2: body}
        with pytest.raises(InputError, match=rf"test, page 2 of .*{reason}"):
            fetch(config)
        assert "from" not in state(tmp_path)
        repo.page_bodies = {}
        repo.log.clear()
        assert fetch(config) == {"kept": 4} and "resumptionToken" in repo.log[0]
        assert "from" in state(tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in ODD_ENDS if kind not in ("no records on a token",)])
def test_a_first_page_without_a_witness_is_no_empty_list(tmp_path: Path, kind: str) -> None:
    body, _ = ODD_ENDS[kind]
    with Server(repo := repository()) as server:
        repo.page_bodies = {1: body}
        with pytest.raises(InputError, match="test, page 1 of"):
            fetch(corpus_of(tmp_path, server))
        assert "from" not in state(tmp_path)
        repo.page_bodies = {}
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 7}


def page(server: Server, entries: list[Entry], token: str) -> bytes:
    inner = "".join(record(entry, server._http) for entry in entries)
    return envelope(f"<ListRecords>{inner}<resumptionToken>{token}</resumptionToken></ListRecords>").encode()


class Endless(dict):
    """Answers every list request with a page that depends on its number."""

    def __init__(self, make) -> None:
        super().__init__()
        self.make = make

    def get(self, number, default=None):
        assert number < 60, "the harvest goes on without end"
        return self.make(number)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("one token", "endless_list|repeated_page"),
        ("a cycle", "endless_list|repeated_page"),
        ("the same records", "repeated_page"),
        ("empty pages", "empty_pages"),
        ("a cycle of empty pages", "endless_list|empty_pages"),
    ],
)
def test_a_list_without_end_ends_with_a_sentence(tmp_path: Path, kind: str, reason: str) -> None:
    with Server(repo := repository()) as server:
        makers = {
            "one token": lambda n: page(server, repo.entries[n % 7 : n % 7 + 1], "again"),
            "a cycle": lambda n: page(server, repo.entries[n % 3 : n % 3 + 1], f"t{n % 3}"),
            "the same records": lambda n: page(server, repo.entries[:3], f"t{n}"),
            "empty pages": lambda n: page(server, [], f"t{n}"),
            "a cycle of empty pages": lambda n: page(server, [], f"t{n % 2}"),
        }
        repo.page_bodies = Endless(makers[kind])
        config = corpus_of(tmp_path, server)
        for _ in range(2):
            with pytest.raises(InputError, match=reason):
                fetch(config)
        assert "from" not in state(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (b"A \x0b thesis", "A   thesis"),
        (b"A &#11; thesis", "A  thesis"),
        (b"Q & A thesis", "Q & A thesis"),
        (b"caf&eacute; thesis", "caf\u00e9 thesis"),
        (b"caf\xe9 thesis", "caf\ufffd thesis"),
        (b"A thesis\xff", "A thesis\ufffd"),
    ],
)
def test_one_wrong_character_stops_no_page_behind_it(tmp_path: Path, wrong: bytes, right: str) -> None:
    with Server(repo := repository()) as server:
        repo.entries[1].title = "TITLE"
        body = page(server, repo.entries[:3], "3||").replace(b"TITLE", wrong + " ÀÉ".encode())
        repo.page_bodies = {1: body}
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 7, "page_mended": 1}
    assert records(tmp_path)["test:oai:test:1"]["title"] == f"{right} ÀÉ"


@pytest.mark.parametrize(
    ("before", "behind"), [(b"<b>Notice</b>: a variable\n", b""), (b"", b"\n<br/>Notice"), (b"\n\n", b"</p>")]
)
def test_what_a_program_writes_around_a_page_stops_no_page(
    tmp_path: Path, before: bytes, behind: bytes
) -> None:
    with Server(repo := repository()) as server:
        repo.page_bodies = {1: before + page(server, repo.entries[:3], "3||") + behind}
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 7, "page_mended": 1}


def test_a_status_in_capitals_is_a_deletion(tmp_path: Path) -> None:
    with Server(repo := repository(1)) as server:
        body = page(server, repo.entries, "").replace(b"<header>", b'<header status="Deleted">')
        repo.page_bodies = {1: body}
        assert fetch(corpus_of(tmp_path, server)) == {"deleted": 1}


def test_a_record_that_cannot_be_mended_is_set_aside_and_asked_for_later(tmp_path: Path) -> None:
    with Server(repo := repository()) as server:
        config = corpus_of(tmp_path, server)
        repo.entries[1].title = "TITLE"
        repo.page_bodies = {1: page(server, repo.entries[:3], "3||").replace(b"TITLE", b"<i>no end")}
        assert fetch(config) == {"kept": 6, "record_damaged": 1, "page_mended": 1}
        repo.page_bodies = {}
        assert records(tmp_path)["test:oai:test:1"]["reason"] == "record_damaged"
        heal(tmp_path)
        assert fetch(config) == {"kept": 1}


def heal(tmp_path: Path) -> None:
    """Let the time pass after which refusals are looked at again."""
    journal = tmp_path / "raw" / "records.jsonl"
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    for entry in entries:
        if "again" in entry:
            entry["again"] = "2020-01-01"
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


PDF = b"%PDF-1.4 ..."


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<html>The repository is being repaired</html>"),
        ("application/zip", b"PK..."),
        ("application/msword", b"no PDF"),
        ("text/plain", b"<!DOCTYPE html><html>Log in first</html>"),
        ("text/plain", b" \n"),
        ("text/html", b'<a href="/a.pdf">one</a> <a href="/b.pdf">another</a>'),
    ],
)
def test_a_refusal_that_may_pass_heals(tmp_path: Path, kind: str, body: bytes) -> None:
    with Server(repo := repository(2)) as server:
        config = corpus_of(tmp_path, server)
        good, repo.files["/files/1.txt"] = repo.files["/files/1.txt"], (kind, body)
        assert fetch(config)["kept"] == 1
        refused = records(tmp_path)["test:oai:test:1"]
        assert refused["reason"] in ("no_file", "unknown_type") and refused["again"] > refused["tried"]
        repo.files["/files/1.txt"] = good
        assert fetch(config) == {}
        heal(tmp_path)
        assert fetch(config) == {"kept": 1}


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\r\n", b"\n\n  "])
def test_a_pdf_behind_a_mark_or_a_line_break_is_one(tmp_path: Path, before: bytes) -> None:
    with Server(repo := repository(1)) as server:
        repo.files["/files/0.txt"] = ("application/octet-stream", before + PDF)
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 1}
    assert records(tmp_path)["test:oai:test:0"]["file"].endswith(".pdf")


@pytest.mark.parametrize(
    "link",
    [
        '<META NAME="CITATION_PDF_URL" CONTENT="/pub/1.pdf">',
        '<meta name="eprints.document_url" content="/pub/1.pdf">',
        '<meta name="bepress_citation_pdf_url" content="/pub/1.pdf">',
        '<link rel="item" href="/pub/1.pdf" type="application/pdf">',
        '<LINK REL="Item" HREF="/pub/1.pdf">',
        '<link rel="alternate" type="application/pdf" href="/pub/1.pdf">',
        '<a href="/pub/1.pdf#page=1">Full text</a> <a href="/pub/1.pdf">PDF</a> <a href="/about.html">?</a>',
        '<iframe src="/pub/1.pdf#view=FitH"></iframe>',
        '<object data="/pub/1.pdf" type="application/pdf"></object>',
    ],
)
def test_a_page_may_name_its_file_in_several_ways(tmp_path: Path, link: str) -> None:
    with Server(repo := repository(1)) as server:
        repo.files["/files/0.txt"] = ("text/html", f"<html><head>{link}</head></html>".encode())
        repo.files["/pub/1.pdf"] = ("application/pdf", PDF)
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 1}


def test_a_redirect_of_the_base_address_is_followed_on_the_host_and_named_elsewhere(tmp_path: Path) -> None:
    with Server(repo := repository(2)) as server:
        config = corpus_of(tmp_path, server)
        config.corpus.harvest.sources[0].url = f"{server.address}/old"
        repo.files["/old"] = ("redirect", b"/oai")
        assert fetch(config) == {"kept": 2}
        repo.files["/old"] = ("redirect", b"http://elsewhere.example/oai")
        with pytest.raises(InputError, match=r"test, page 1 of .*/old .*redirect_to_elsewhere\.example"):
            fetch(config)


def test_a_list_that_says_how_many_there_are_ends_when_they_came(tmp_path: Path) -> None:
    with Server(Repository()) as server:
        repo = server._http.repository
        repo.entries, repo.files = repository(3).entries, repository(3).files
        repo.page_bodies = {1: page(server, repo.entries, "").replace(b"<resumptionToken>", SIZE)}
        assert fetch(corpus_of(tmp_path, server)) == {"kept": 3} and "from" in state(tmp_path)


SIZE = b'<resumptionToken completeListSize="3" cursor="0">'
