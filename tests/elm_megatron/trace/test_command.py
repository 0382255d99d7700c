"""Tracing a model's answers: the datasets behind it, the index that is made once, what is printed."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from rich.console import Console

from conf.errors import InputError
from conf.schema.preprocess import CorpusConfig, DataConfig, PreprocessConfig, TokenizerConfig
from conf.schema.trace import TraceConfig
from data_prep.job import Preprocess
from data_prep.manifest import Manifest
from data_prep.takedown import take_down
from elm_megatron.run.folder import RunFolder
from elm_megatron.trace import show
from elm_megatron.trace.command import ready_index, trace_command
from elm_megatron.trace.datasets import datasets_of
from elm_megatron.trace.index import Outdated, Work
from elm_megatron.trace.tracer import Span, Trace, Tracer, opened
from tests.elm_megatron.small_dataset import make_text_dataset

BODY = "De haven van Rotterdam werd in de negentiende eeuw steeds groter en drukker dan elke andere haven."
OTHER = "Housing cooperatives in several countries have always been founded by those who needed a home."
HELD_OUT = "Dit werk is achtergehouden en wordt nooit gevonden, wat er ook gebeurt."
WORKS = [
    {"id": "a", "title": "Haven", "split": "train", "text": f"Eerst dit.\n{BODY} En dan dat."},
    {"id": "b", "title": "Wonen", "split": "train", "text": f"{OTHER} So it went."},
    {"id": "c", "title": "Kopie", "split": "train", "text": f"Kopie: {BODY}"},
    {"id": "d", "title": "Apart", "split": "valid", "text": f"{HELD_OUT} En meer."},
]


class Quiet:
    """No progress."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)

    def stage(self, name: str, unit: str) -> Any:
        from contextlib import nullcontext

        return nullcontext(lambda done, total: None)


def run_of(folder: Path, data: Path, **record: Any) -> Path:
    """A pretraining run on a dataset, as its two files describe it."""
    run = RunFolder(folder)
    run.create()
    config = {"data": {"dir": str(data)}, "model": {}, "run": {"name": folder.name}}
    run.config.write_text(yaml.safe_dump(config))
    run.update(verb="pretrain", manifest_sha256=Manifest.load(data).sha256, **record)
    return folder


@pytest.fixture
def trained(corpus: Path, tmp_path: Path) -> Path:
    """A run trained on `WORKS`."""
    return run_of(tmp_path / "runs" / "r", make_text_dataset(tmp_path / "data", corpus, WORKS))


def command(run: Path, capsys: pytest.CaptureFixture[str], **keys: Any) -> tuple[str, str]:
    """What the command prints on both streams."""
    config = TraceConfig(source=str(run), **keys)
    config.check()
    assert trace_command(config) == 0
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_passages_and_works_as_json(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first command indexes, the second only reads; characters, works and titles are right."""
    answer = f"Het antwoord: {BODY[3:60]} … en {OTHER[:-1]}!"
    out, err = command(trained, capsys, text=answer, json=True)
    assert "indexed" in err
    again, err = command(trained, capsys, text=answer, json=True)
    assert again == out and "indexed" not in err
    found = json.loads(out)
    assert found["text"] == answer
    first, last = found["spans"][0], found["spans"][-1]
    assert first["text"].strip() in BODY and len(first["text"]) > 45
    assert [(work["id"], work["title"]) for work in first["works"]] == [("a", "Haven"), ("c", "Kopie")]
    assert first["times"] == 2
    assert last["text"] == f" {OTHER[:-1]}" and [work["id"] for work in last["works"]] == ["b"]
    assert answer[last["start"] : last["stop"]] == last["text"]
    assert found["characters_covered"] <= len(answer)
    one, _ = command(trained, capsys, text=answer, json=True, works=1)
    assert json.loads(one)["spans"][0]["works_found"] == 2 and len(json.loads(one)["spans"][0]["works"]) == 1


def test_held_out_works_are_not_training_works(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = command(trained, capsys, text=HELD_OUT)
    assert "no passage of this answer" in out


ODD = ["", " \n", "kort", "\ud800 half \udfff", "\x00\x1b[31m\x07", "🌍" * 3000, "▁▁ ▁", "\r\n\r\n"]


@pytest.mark.parametrize("text", [*ODD, "e\u0301\u200d\u202e" * 20])
def test_odd_answers(text: str, trained: Path) -> None:
    """No answer breaks it, and every piece is of the text."""
    tracer = Tracer([ready_index(one, Quiet()) for one in datasets_of(str(trained))])
    for answer in (text, text + BODY, BODY + text, f"{BODY[:50]}{text}{BODY[50:]}"):
        trace = tracer.trace(answer)
        assert "".join(trace.text[a:b] for a, b, _ in trace.pieces()) == trace.text
        assert not trace.spans or BODY in answer or BODY[:50] in answer
        assert bool(trace.spans) == (BODY in answer or BODY[:50] in answer)
        json.dumps(trace.as_json())
        out = io.StringIO()
        show.show(trace, Console(file=out, color_system=None), 5)
        assert not {"\x1b", "\x07", "\x00"}.intersection(out.getvalue())
        show.show(trace, Console(file=out, force_terminal=True), 5)


def test_without_colours_the_marks_are_text() -> None:
    """Overlapping passages too, each with its number where it begins and ends."""
    work = Work("a", "Haven", year=2001)
    places = ((0, 4, 1), (2, 6, 7), (8, 9, 1))
    spans = tuple(Span(start, stop, 8, 1, (work,) * n, "d") for start, stop, n in places)
    trace = Trace("abcdefghij", 10, spans)
    out = io.StringIO()
    show.show(trace, Console(file=out, color_system=None), 2)
    lines = out.getvalue().splitlines()
    assert lines[0] == "[1 ab[2 cd 1]ef 2]gh[3 i 3]j"
    assert lines[2:5] == [
        "[1] 8 tokens, 1 time in 1 work: a (Haven, 2001)",
        "[2] 8 tokens, 1 time in 7 works: a (Haven, 2001); a (Haven, 2001); and 5 more",
        "[3] 8 tokens, 1 time in 1 work: a (Haven, 2001)",
    ]
    assert trace.covered == 7


def test_an_answer_from_a_file_or_standard_input(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "answer.txt").write_bytes(b"\xef\xbb\xbf" + BODY.encode())
    from_file, _ = command(trained, capsys, file=str(tmp_path / "answer.txt"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BODY.encode())))
    assert command(trained, capsys)[0] == from_file
    assert "a (Haven)" in from_file
    assert command(trained, capsys, file="/dev/null")[0] == ""  # only the index
    nothing, _ = command(trained, capsys, text="", json=True)
    assert json.loads(nothing) == {"text": "", "tokens": 0, "characters_covered": 0, "spans": []}
    (tmp_path / "latin").write_bytes("één".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin: is not UTF-8 text \(byte 0\)"):
        command(trained, capsys, file=str(tmp_path / "latin"))
    with pytest.raises(InputError, match="file=nowhere: cannot be read"):
        command(trained, capsys, file="nowhere")
    with pytest.raises(InputError, match="give one of them"):
        TraceConfig(source="r", text="a", file="b").check()


def test_a_terminal_gives_answers_one_after_another(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO(f"{BODY}\n\n\nkort\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", terminal)
    out, err = command(trained, capsys)
    assert out.count("of the characters are in") == 1 and out.count("no passage of this answer") == 1
    assert "Ctrl-D ends" in err


def test_a_dataset_that_cannot_be_written(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is in the run's folder then, and found there; or where index_dir says."""
    mkdir = Path.mkdir

    def read_only(self: Path, *arguments: Any, **keys: Any) -> None:
        if self.parent == tmp_path / "data":
            raise OSError(30, "Read-only file system", str(self))
        mkdir(self, *arguments, **keys)

    monkeypatch.setattr(Path, "mkdir", read_only)
    _, err = command(trained, capsys, text=BODY)
    assert f"in {trained}/trace/" in err and not (tmp_path / "data" / "trace").exists()
    assert "indexed" not in command(trained, capsys, text=BODY)[1]
    assert opened(datasets_of(str(trained))).trace(BODY).spans
    assert "indexed" in command(trained, capsys, text=BODY, index_dir=str(tmp_path / "elsewhere"))[1]
    monkeypatch.setattr(Path, "mkdir", mock.Mock(side_effect=OSError(13, "Permission denied")))
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\); give index_dir="):
        command(trained, capsys, text=BODY, index_dir=str(tmp_path / "third"))


def test_an_old_index_on_a_disk_that_cannot_be_written(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a work that was taken down: a new one is made in the run's folder, without the work."""
    data = tmp_path / "data"
    command(trained, capsys, text=BODY)
    (data / "tombstones.jsonl").write_text('{"id": "a", "sha256": null}\n')
    mkdir = Path.mkdir

    def read_only(self: Path, *arguments: Any, **keys: Any) -> None:
        if self.parent == data:
            raise OSError(30, "Read-only file system", str(self))
        mkdir(self, *arguments, **keys)

    monkeypatch.setattr(Path, "mkdir", read_only)
    out, err = command(trained, capsys, text=BODY, json=True)
    assert "cannot be written (Read-only file system)" in err and f"in {trained}/trace/" in err
    assert {work["id"] for span in json.loads(out)["spans"] for work in span["works"]} == {"c"}
    assert opened(datasets_of(str(trained))).trace(BODY).spans


def test_no_library_is_a_sentence(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydivsufsort", None)
    with pytest.raises(InputError, match=r"needs pydivsufsort, .*pip install .* -e \.\[trace\]"):
        command(trained, capsys, text=BODY)
    assert not list((trained.parents[1] / "data").glob(".trace*"))


def test_no_index_is_outdated(trained: Path) -> None:
    with pytest.raises(Outdated, match="has no index yet"):
        opened(datasets_of(str(trained)))


def test_the_datasets_behind_a_model(
    trained: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a tuned run, of a blend, of one begun from another; a dataset that is gone is named."""
    more = make_text_dataset(tmp_path / "more", corpus, WORKS[1:])
    tuned = RunFolder(tmp_path / "runs" / "tuned")
    tuned.create()
    tuned.config.write_text(yaml.safe_dump({"source": str(trained), "tune": {}, "run": {"name": "tuned"}}))
    tuned.update(verb="finetune")
    shutil.copytree(trained / "logs", tuned.path / "adapter", dirs_exist_ok=True)
    (tuned.path / "adapter" / "adapter_config.json").write_text("{}")
    assert [one.manifest.folder for one in datasets_of(str(tuned.path))] == [tmp_path / "data"]
    parts = (tmp_path / "data", more)
    blend = [{"dir": str(part), "manifest_sha256": Manifest.load(part).sha256} for part in parts]
    both = run_of(tmp_path / "runs" / "both", more, blend=blend)
    assert {one.manifest.folder for one in datasets_of(str(both))} == {tmp_path / "data", more}
    out, _ = command(both, capsys, text=OTHER, json=True)
    assert len(json.loads(out)["spans"]) == 2  # of each dataset
    shutil.rmtree(more)
    with pytest.raises(InputError, match=r"the dataset it was trained on \(.*more\) is gone"):
        datasets_of(str(both))
    assert datasets_of(str(both), str(tmp_path / "data"))[0].manifest.folder == tmp_path / "data"


def test_a_take_down_takes_the_work_out_of_the_index(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the real command, before the dataset is built again and after."""
    texts = tmp_path / "texts"
    texts.mkdir()
    sample = Path("data_prep/sample")
    for path in sample.glob("*.txt"):
        shutil.copy(path, texts)
    config = PreprocessConfig(
        corpus=CorpusConfig(name="texts", path=str(texts)),
        tokenizer=TokenizerConfig(501),
        data=DataConfig(str(tmp_path / "data" / "texts")),
        runs_dir=str(tmp_path / "runs"),
    )
    Preprocess(config)()
    data = config.data_dir()
    run = run_of(tmp_path / "runs" / "r", data)
    import pyarrow.parquet as pq

    rows = pq.read_table(data / "documents.parquet").to_pylist()
    gone, stays = [row for row in rows if row["split"] == "train"][1:3]

    def works(text: str) -> set[str]:
        capsys.readouterr()
        out, _ = command(run, capsys, text=text[:600], json=True)
        return {work["id"] for span in json.loads(out)["spans"] for work in span["works"]}

    assert gone["id"] in works(gone["text"]) and stays["id"] in works(stays["text"])
    config.remove = gone["id"]
    take_down(config)
    with pytest.raises(Outdated):
        opened(datasets_of(str(run)))
    assert gone["id"] not in works(gone["text"]) and stays["id"] in works(stays["text"])
    assert opened(datasets_of(str(run))).trace(stays["text"][:600]).spans
    config.remove = None
    Preprocess(config)()
    with pytest.raises(Outdated):
        opened(datasets_of(str(run)))
    assert gone["id"] not in works(gone["text"]) and stays["id"] in works(stays["text"])
    assert datasets_of(str(run))[0].changed
