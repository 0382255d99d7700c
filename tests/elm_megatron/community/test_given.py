"""What comes in from a spreadsheet, what a withdrawal leaves behind, and how many answers at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import func, select

from elm_megatron.card.card import _withdrawn
from elm_megatron.community import guards, lineage, sheet
from elm_megatron.community.board import board_of
from elm_megatron.community.export import export
from elm_megatron.community.tables import Comparison, Item, Person, Vote
from tests.elm_megatron.community.conftest import Community

DIALOGUES = [["Prompt-Response"], ["Human: What is a port? Assistant: A place for ships."]]
DIALOGUES += [["Human: One? Assistant: Two. Human: Three? Assistant: Four."], ["no dialogue"]]
PAIRS = [["Prompt", "Option 1", "Option 2", "Rater 1", "Rater 2"]]
PAIRS += [
    ["Which?", "The first.", "The second.", 1, 1],
    ["And now?", "Yes.", "No.", 2, 1],
    ["Same", "x", "x", 1, 1],
]


@pytest.fixture
def workbook(tmp_path: Path) -> Path:
    openpyxl = pytest.importorskip("openpyxl", reason="needs openpyxl")
    book = openpyxl.Workbook()
    for name, rows in (("Fine-Tuning", DIALOGUES), ("Reinforcement Learning", PAIRS)):
        page = book.create_sheet(name)
        for row in rows:
            page.append(row)
    path = tmp_path / "invented.xlsx"
    book.save(path)
    return path


def test_a_spreadsheet_comes_in_once_with_its_raters(community: Community, workbook: Path) -> None:
    with community.sessions() as stored:
        counts = sheet.take(stored, workbook, community.key, community.settings)
        stored.commit()
        assert counts["texts, to be reviewed"] == 1 and counts["skipped, several turns"] == 1
        assert counts["pairs"] == 2 and counts["votes"] == 4 and counts["skipped, no pair"] == 1
        again = sheet.take(stored, workbook, community.key, community.settings)
        stored.commit()
        assert again["texts that are there already"] == 1 and again["pairs that are there already"] == 2
        assert again["votes"] == again["pairs"] == 0
        assert stored.scalar(select(func.count(Person.id))) == 3  # two raters and the authors
        assert stored.scalar(select(Item.status)) == "submitted"  # it is reviewed as every text is
        assert board_of(stored).votes == 4
        assert stored.scalar(select(func.count(Comparison.id))) == 2
        votes = list(stored.scalars(select(Vote).order_by(Vote.id)))
        assert [one.winner for one in votes] == ["a", "a", "b", "a"]
        assert not any("Rater" in one for one in stored.scalars(select(Person.pseudonym)))


def test_a_card_says_how_many_were_withdrawn(community: Community) -> None:
    writer = community.person().agree()
    for number in (1, 2, 3):
        writer.give(f"Question {number}", "Answer")
        for _ in range(3):
            community.person("reviewer").agree().post("/review", item=str(number), verdict="accept")
    writer.post("/withdraw", item="1")
    folder = community.folder / "exports" / "autumn"
    with community.sessions() as stored:
        export(stored, folder)
    files = {"files": [str(folder / "sft-train.jsonl")]}
    assert [row[1] for row in _withdrawn(files)] == [1, 0]
    manifest = (folder / "manifest.json").read_bytes()
    writer.post("/withdraw", item="2")
    assert [row[1] for row in _withdrawn(files)] == [1, 1]
    writer.post("/withdraw", item="all")
    assert [row[1] for row in _withdrawn(files)] == [1, 2]
    assert json.loads((folder / "withdrawn.json").read_text())["items"] == ["item 2", "item 3"]
    assert (folder / "manifest.json").read_bytes() == manifest
    assert _withdrawn({"files": ["pkg://elm_megatron/tune/sample/instructions.jsonl"]}) == []
    lineage.note_withdrawn(community.folder / "exports", ["item 99"])  # nothing of it is anywhere


def test_nobody_holds_every_answer(community: Community) -> None:
    streams = guards.Streams(of_one=2, of_all=3)
    with streams.one("a"), streams.one("a"):
        with pytest.raises(guards.TooMany), streams.one("a"):
            pass
        with streams.one("b"), pytest.raises(guards.TooMany), streams.one("c"):
            pass
    with streams.one("a"):
        pass
    person = community.person()
    services = community.app.state.services
    services.streams = guards.Streams(of_one=0)
    for path in ("/ask", "/ask/stream"):
        assert "too fast" in person.post(path, 429, question="Hello?")
    services.streams = guards.Streams()
    for _ in range(3):
        person.post("/ask/stream", question="Hello?")  # each gives its place back
    assert not services.streams._open
