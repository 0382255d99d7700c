"""The pages as people use them: write, review, correct, compare, download, withdraw."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from sqlalchemy import select

from elm_megatron.community import settings
from elm_megatron.community.export import export
from elm_megatron.community.tables import Comparison, Item, Vote
from tests.elm_megatron.community.conftest import Community


def test_a_text_is_reviewed_by_three_others_and_exported(community: Community, tmp_path: Path) -> None:
    writer = community.person().agree()
    writer.give("What is a trust?", "A legal arrangement in which one party holds property for another.")
    assert "nothing to review" in writer.get("/review")  # never one's own
    reviewers = [community.person("reviewer").agree() for _ in range(4)]
    for reviewer, verdict in zip(reviewers, ("accept", "reject", "accept"), strict=False):
        page = reviewer.get("/review")
        assert "What is a trust?" in page
        number = re.search(r'name="item" value="(\d+)"', page)[1]
        reviewer.post("/review", item=number, verdict=verdict)
        assert "nothing to review" in reviewer.get("/review")
    assert "nothing to review" in reviewers[3].get("/review")  # three are enough
    with community.sessions() as stored:
        assert stored.scalar(select(Item.status)) == "accepted"  # two of three
        manifest = export(stored, tmp_path / "one")
        again = export(stored, tmp_path / "two")
    assert manifest == again
    lines = [path.read_text() for path in sorted((tmp_path / "one").glob("sft-*.jsonl"))]
    (row,) = [json.loads(line) for text in lines for line in text.splitlines()]
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
    assert row["messages"][0]["content"] == "What is a trust?"
    for name in manifest["files"]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_lacks_consent_or_review_is_left_out_and_counted(community: Community, tmp_path: Path) -> None:
    for training in (True, False):
        writer = community.person().agree(training)
        writer.give(f"Question {training}", "Answer")
    community.person().agree().give("Not reviewed", "Answer")
    reviewers = [community.person("reviewer").agree() for _ in range(3)]
    for reviewer in reviewers:
        for _ in range(2):
            number = re.search(r'name="item" value="(\d+)"', reviewer.get("/review"))[1]
            reviewer.post("/review", item=number, verdict="accept")
    with community.sessions() as stored:
        manifest = export(stored, tmp_path / "out")
    assert manifest["left_out"] == {"no_consent_to_training": 1, "submitted": 1}
    assert manifest["items"] == ["item 1"]


def test_nothing_of_a_chat_is_stored_without_consent(community: Community) -> None:
    canary = "Qx7-canary-of-a-question"
    person = community.person().agree()
    assert canary in person.post("/ask", question=canary)
    assert canary in person.post("/ask/stream", question=canary)
    community.engine.dispose()
    for path in community.folder.rglob("*"):
        assert not path.is_file() or canary.encode() not in path.read_bytes(), path


def test_a_correction_becomes_a_pair(community: Community, tmp_path: Path) -> None:
    writer = community.person().agree()
    writer.give("Who?", "The right answer.", rejected="The model's answer.", model="elm-tuned-x")
    for _ in range(3):
        reviewer = community.person("reviewer").agree()
        reviewer.get("/review")
        reviewer.post("/review", item="1", verdict="accept")
    with community.sessions() as stored:
        export(stored, tmp_path / "out")
    text = "".join(path.read_text() for path in (tmp_path / "out").glob("dpo-*.jsonl"))
    assert json.loads(text) == {
        "id": "item 1", "prompt": "Who?", "chosen": "The right answer.", "rejected": "The model's answer."
    }  # fmt: skip


def test_a_comparison_is_blind_until_the_vote(community: Community) -> None:
    first, second = community.person().agree(), community.person().agree()
    page = first.post("/compare", prompt="How does a port work?")
    assert "How does a port work?" in page
    assert "elm-tuned-x" not in page and "elm-before-y" not in page
    swapped = re.search(r'name="swapped" value="(\w+)"', page)[1]
    said = first.post("/vote", item="1", swapped=swapped, choice="left")
    assert "elm-tuned-x" in said and "elm-before-y" in said
    assert "How does a port work?" in second.get("/compare")  # the same pair, to a second rater
    second.post("/vote", item="1", swapped="no", choice="tie")
    second.post("/vote", 404, item="1", swapped="no", choice="right")  # once each
    with community.sessions() as stored:
        votes = list(stored.scalars(select(Vote).order_by(Vote.id)))
        pair = stored.get(Comparison, 1)
        left = pair.answer_b if swapped == "yes" else pair.answer_a
        winner = {"a": pair.answer_a, "b": pair.answer_b}[votes[0].winner]
    assert left == winner
    board = first.get("/board")
    assert "elm-tuned-x" in board and "<td>2</td>" in board


def test_a_vote_on_an_answer_that_names_its_model_is_dropped_and_counted(
    tmp_path: Path, model: object
) -> None:
    community = Community(tmp_path, [model("first-model", "I am First-Model"), model("other-model")])
    person = community.person().agree()
    page = person.post("/compare", prompt="Who are you?")
    assert "First-Model" in page
    person.post("/vote", item="1", swapped="no", choice="left")
    board = person.get("/board")
    assert "There are no votes yet" in board
    assert "Who are you?" not in community.person().agree().get("/compare")


def test_withdrawing_erases_the_text_and_names_what_was_made(community: Community, tmp_path: Path) -> None:
    writer = community.person().agree()
    writer.give("To be withdrawn", "An answer")
    for _ in range(3):
        community.person("reviewer").agree().post("/review", item="1", verdict="accept")
    exported = community.folder / "exports" / "autumn"
    with community.sessions() as stored:
        export(stored, exported)
    run_configs = {
        "tuned": {"source": "base", "sft": {"files": [str(exported / "sft-train.jsonl")]}},
        "preferred": {"source": str(community.runs / "tuned"), "dpo": {"files": ["other.jsonl"]}},
        "exported": {"source": str(community.runs / "preferred@40")},
        "innocent": {"source": "base", "sft": {"files": ["elsewhere.jsonl"]}},
    }
    for name, config in run_configs.items():
        (community.runs / name).mkdir(parents=True)
        (community.runs / name / "config.yaml").write_text(yaml.safe_dump(config))
    page = writer.post("/withdraw", item="1")
    for name in ("autumn", "tuned", "preferred", "exported"):
        assert f"<li>{name}</li>" in page
    assert "innocent" not in page
    assert "To be withdrawn" not in writer.get("/mine")
    with community.sessions() as stored:
        item = stored.get(Item, 1)
        assert (item.status, item.prompt, item.answer) == ("withdrawn", "", "")
    data = json.loads(writer.get("/mine.json"))
    assert data["items"][0]["status"] == "withdrawn" and data["pseudonym"]


def test_the_next_export_is_without_what_was_withdrawn(community: Community, tmp_path: Path) -> None:
    writers = [community.person().agree() for _ in range(2)]
    for number, writer in enumerate(writers, 1):
        writer.give(f"Question {number}", "Answer")
        for _ in range(3):
            community.person("reviewer").agree().post("/review", item=str(number), verdict="accept")
    writers[0].post("/withdraw", item="all")
    with community.sessions() as stored:
        manifest = export(stored, tmp_path / "out")
    assert manifest["items"] == ["item 2"] and manifest["left_out"] == {"withdrawn": 1}
    assert manifest["withdrawn"] == 1


def test_personal_data_is_refused_before_it_is_stored(community: Community) -> None:
    writer = community.person().agree()
    page = writer.post(
        "/write", 400, prompt="Mail me", answer="at someone@example.org please", may_be_used="yes"
    )
    assert "personal data: e-mail" in page and "Mail me" in page  # what was typed is not lost
    with community.sessions() as stored:
        assert stored.scalar(select(Item.id)) is None


def test_a_new_consent_text_asks_again(community: Community) -> None:
    person = community.person().agree()
    assert "What is better?" in person.get("/write")
    path = community.folder / "consent.yaml"
    path.write_text(path.read_text().replace("version: 1", "version: 2"))
    community.app.state.services.settings = settings.read(community.folder, [])
    assert "Please read this text" in person.get("/write")


def test_a_dead_model_is_said(tmp_path: Path) -> None:
    community = Community(tmp_path, [{"name": "gone", "url": "http://127.0.0.1:9"}])
    person = community.person().agree()
    assert "does not answer at the moment" in person.post("/ask", 503, question="Hello?")


def test_dutch_and_english(community: Community) -> None:
    browser = community.browser()
    assert "Stel vragen" in browser.get("/language/nl").text
    assert "Ask the university" in browser.get("/language/en").text
    words = [set(yaml.safe_load((settings.TEXTS / f"{one}.yaml").read_text())) for one in ("nl", "en")]
    assert words[0] == words[1]
