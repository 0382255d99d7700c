"""The whole loop on a tiny model: give, export, tune, compare, serve, withdraw, and the next export. Slow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from elm_megatron.community import beside, database, identity, settings
from elm_megatron.community.app import make
from tests.elm_megatron.community.conftest import Community, Person

ROOT = Path(__file__).resolve().parents[3]
SMALL = ["train.steps=4", "train.eval_batches=1", "tune.steps=2", "tune.warmup_steps=1", "dpo_tune.steps=2"]
SMALL += ["dpo_tune.warmup_steps=1", "sft.valid_fraction=0.3", "dpo.valid_fraction=0.3"]
pytestmark = pytest.mark.slow


def launch(folder: Path, verb: str, *words: str) -> str:
    """What a launcher prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / f"{verb}.py"), *words],
        cwd=folder, capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


class Served(Community):
    """An app in a project's folder whose models are really served."""

    def __init__(self, folder: Path, models: list[dict[str, str]]):
        self.folder, self.runs = folder / "community", folder / "runs"
        self.settings = settings.read(self.folder, models)
        self.engine = database.opened(f"sqlite:///{self.folder}/community.sqlite")
        self.app = make(self.settings, self.engine, self.runs)
        self.key = identity.secret(self.folder)
        self.sessions = database.sessions(self.engine)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A tiny tuned model and the one before it, served by llama.cpp, with the app before them."""
    pytest.importorskip("xllamacpp", reason="needs the xllamacpp package")
    launch(tmp_path, "pipeline", "run.name=base", "stages=[preprocess,pretrain,finetune]", *SMALL)
    monkeypatch.chdir(tmp_path)
    with beside.server(["base-pretrain", "base-finetune"], tmp_path / "runs") as models:
        yield Served(tmp_path, models)


def give_and_review(people: list[Person]) -> None:
    """Each writes four texts, reviews the others', and votes on pairs that the models have answered."""
    for who, person in enumerate(people):
        for number in range(4):
            person.give(f"What is harbour {who}-{number}?", f"A place for {number} ships, says {who}.")
            wrong = f"Harbour {who}-{number} again?"
            person.give(wrong, f"Ships, {number}.", rejected=f"No idea {number}.", model="base-finetune")
    for item in range(1, 8 * len(people) + 1):
        given = 0
        for person in people:
            csrf = person.csrf()
            answer = person.client.post("/review", data={"csrf": csrf, "item": item, "verdict": "accept"})
            given += answer.status_code == 200
        assert given == 3
    for person in people[:2]:
        person.post("/compare", prompt="How deep is the water?")


def test_the_loop_closes(served: Served, tmp_path: Path) -> None:
    served.app.state.services.rates.allows = lambda *_: True  # four people who type as fast as a test
    people = [served.person().agree() for _ in range(4)]
    give_and_review(people)
    stages = "stages=[community,finetune,dpo,compare]"
    said = launch(tmp_path, "pipeline", "run.name=next", stages, "source=base-finetune", *SMALL)
    assert "held-out prompts against base-finetune" in said
    result = json.loads((tmp_path / "runs" / "next-compare" / "comparison.json").read_text())
    assert result["new"] == "next-dpo" and 0 <= result["low"] <= result["win_rate"] <= result["high"] <= 1
    page = people[0].post("/withdraw", item="all")
    for name in ("next", "next-finetune", "next-dpo", "next-compare"):
        assert f"<li>{name}</li>" in page
    assert "<li>base" not in page
    printed = launch(tmp_path, "community", "export=after")
    assert "withdrawn" in printed
    before, after = (
        json.loads((tmp_path / "community" / "exports" / name / "manifest.json").read_text())
        for name in ("next", "after")
    )
    assert set(after["items"]) < set(before["items"]) and after["withdrawn"] == 8
    launch(
        tmp_path,
        "finetune",
        "run.name=later",
        "source=base-pretrain",
        "sft.files=[community]",
        "tune.steps=2",
    )
    launch(tmp_path, "export", "run.name=card", "source=later")
    card = (tmp_path / "runs" / "card" / "model" / "README.md").read_text()
    assert "withdrawn before the export after, and not in it | 8" in card
