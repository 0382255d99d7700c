"""Perplexity counts every token once; tasks run offline; models stand side by side."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conf.errors import InputError
from conf.names import joined_names
from conf.schema.hf import TASKS, DatasetChoice, EvalConfig
from conf.schema.run import RunConfig
from data_prep.manifest import Manifest
from data_prep.tokenizer import Tokenizer
from elm_megatron.evaluate import task_files
from elm_megatron.evaluate.perplexity import Document, documents, measure, windows
from elm_megatron.run.folder import RunFolder
from tests.elm_megatron import model_jobs as cases


@pytest.mark.parametrize(("length", "size"), [(1, 8), (2, 2), (8, 8), (9, 8), (100, 8), (101, 7), (50, 2)])
def test_windows_count_each_token_once(length: int, size: int):
    """All ids but the first, in order, none twice, none beyond the window."""
    ids = list(range(length))
    counted = []
    for seen, first in windows(ids, size):
        assert 1 <= first < len(seen) <= size
        counted += seen[first:]
    assert counted == ids[1:]


def loaded(folder: Path):
    """The model in fp32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_perplexity_against_the_plain_sum(made: Callable[[str], cases.Made]):
    """A text shorter than the window: −log p summed over one forward pass; bits per byte from its bytes."""
    import torch

    one = made("gqa")
    model, text = loaded(one.hf), "De wachtlijst is korter geworden; één façade 🌍."
    ids = [2, *Tokenizer.load(one.hf).encode(text)]
    with torch.no_grad():
        log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    nats = -sum(log_p[i, ids[i + 1]].item() for i in range(len(ids) - 1))
    found = measure(model, one.hf, 2, [Document("nl", "thesis", text)], None)
    assert list(found) == ["all", "language nl", "source thesis"]
    row = found["all"]
    assert row["tokens"] == len(ids) - 1
    assert row["loss"] == pytest.approx(nats / row["tokens"], rel=1e-5)
    assert row["perplexity"] == pytest.approx(math.exp(row["loss"]))
    assert row["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(text.encode()), rel=1e-5)


def test_groups_add_up(made: Callable[[str], cases.Made], corpus: Path):
    """Both splits by language and source; the parts sum to the whole."""
    manifest = Manifest.load(corpus)
    works = documents(manifest, "train", 2)
    assert len(works) == 2
    assert len(documents(manifest, "valid", None)) == manifest.splits["valid"].documents
    one = made("gqa")
    found = measure(loaded(one.hf), one.hf, 2, works, 256)
    for kind in ("language", "source"):
        parts = [row for group, row in found.items() if group.startswith(kind)]
        for key in ("documents", "tokens", "bytes"):
            assert sum(row[key] for row in parts) == found["all"][key]


def test_task_files():
    """Four answers each, one of them right, none twice; unknown tasks are refused with the known ones."""
    for name in TASKS:
        task = task_files.load(name)
        data = Path(task["dataset_kwargs"]["data_files"]["test"])
        rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
        assert task["task"] == name
        assert len(rows) >= 12
        assert len({row["text"] for row in rows}) == len(rows)
        assert {row["answer"] for row in rows} == {0, 1, 2, 3}
        assert all(len(set(row["choices"])) == 4 for row in rows)
    with pytest.raises(InputError, match=r"tasks=hellaswag: .* elm_cloze_en, elm_cloze_nl"):
        task_files.load("hellaswag")


def eval_config(folder: Path, sources: list[Path], **changes: Any) -> EvalConfig:
    """A checked evaluation on one work, without tasks; its run folder is made."""
    values = {"max_documents": 1, "tasks": [], **changes}
    config = EvalConfig(RunConfig("eval", str(folder)), [str(source) for source in sources], **values)
    config.check()
    RunFolder(folder).create()
    return config


def test_models_of_one_name_are_told_apart(made: Callable[[str], cases.Made], corpus: Path, tmp_path: Path):
    """Every export ends in `/model`: both have their row, named by the run; one model twice is refused."""
    from elm_megatron.evaluate.evaluate import evaluate
    from elm_megatron.sources.source import side_by_side

    folders = [tmp_path / "a" / "model", tmp_path / "b" / "model", tmp_path / "c" / "a"]
    for folder, name in zip(folders, ("gqa", "mha", "gqa"), strict=True):
        shutil.copytree(made(name).hf, folder)
    results = evaluate(
        eval_config(tmp_path / "eval", folders[:2], data=DatasetChoice(str(corpus)), max_documents=1)
    )
    assert list(results) == ["a", "b"]
    assert results["a"]["perplexity"]["all"]["loss"] != results["b"]["perplexity"]["all"]["loss"]
    assert json.loads((tmp_path / "eval" / "evaluation.json").read_text()) == results
    assert json.loads((tmp_path / "eval" / "run.json").read_text())["evaluation"] == results
    assert (tmp_path / "eval" / "evaluation.md").read_text().startswith("| measure | a | b |")
    assert "| measure | b |" in (folders[1] / "README.md").read_text()
    assert joined_names([str(folder) for folder in folders]) == "a-b-a"
    sources = [str(folder) for folder in folders]
    assert list(side_by_side(sources)) == [sources[0], "b", sources[2]]
    (tmp_path / "link").symlink_to(folders[0])
    with pytest.raises(InputError, match=r"link and source=.* are the same model"):
        side_by_side([str(tmp_path / "link"), str(folders[1]), str(folders[0])])


def test_a_run_is_measured_as_its_export(made: Callable[[str], cases.Made], tmp_path: Path):
    """source=<run> without an export of it; the dataset is the run's, also for a bare `…/model`."""
    from elm_megatron.evaluate.evaluate import evaluate

    one = made("gqa")
    shutil.copytree(one.hf.parent, tmp_path / "export")
    found = evaluate(eval_config(tmp_path / "eval", [tmp_path / "export" / "model", one.run]))
    assert list(found) == ["export", "run"]
    losses = [figures["perplexity"]["all"]["loss"] for figures in found.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_damaged_weights_are_a_sentence(made: Callable[[str], cases.Made], corpus: Path, tmp_path: Path):
    from elm_megatron.evaluate.evaluate import evaluate

    folder = tmp_path / "broken"
    shutil.copytree(made("gqa").hf, folder)
    shard = min(folder.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(InputError, match="broken: transformers cannot load it"):
        evaluate(eval_config(tmp_path / "eval", [folder], data=DatasetChoice(str(corpus))))


@pytest.mark.slow
def test_side_by_side(made: Callable[[str], cases.Made], corpus: Path, tmp_path: Path):
    """Two models, perplexity and tasks, one table and picture; each card gets its section."""
    pytest.importorskip("lm_eval", reason="needs the eval extra")
    from elm_megatron.evaluate.evaluate import evaluate

    folders = []
    for name in ("gqa", "mha"):
        shutil.copytree(made(name).hf, tmp_path / name)
        folders.append(tmp_path / name)
    choice = DatasetChoice(str(corpus))
    sources = [*folders, made("gqa").run]
    results = evaluate(eval_config(tmp_path / "eval", sources, limit=4, tasks=list(TASKS), data=choice))
    assert list(results) == ["gqa", "mha", "run"]
    assert results["run"]["tasks"] == results["gqa"]["tasks"]
    for result in results.values():
        assert set(result["tasks"]) == set(TASKS)
        assert all(0 <= task["accuracy"] <= 1 and task["items"] == 4 for task in result["tasks"].values())
    table = (tmp_path / "eval" / "evaluation.md").read_text()
    assert table.startswith("| measure | gqa | mha | run |")
    assert f"{results['mha']['perplexity']['all']['bits_per_byte']:.4g}" in table
    assert (tmp_path / "eval" / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    for folder in folders:
        text = (folder / "README.md").read_text()
        assert "Not evaluated yet" not in text
        assert f"{results[folder.name]['perplexity']['all']['perplexity']:.4g}" in text
