"""Perplexity counts every token once; tasks run offline; models stand side by side."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.errors import InputError
from data_prep.manifest import Manifest
from data_prep.tokenizer import Tokenizer
from elm_megatron.config import RunConfig
from elm_megatron.hf import tasks_run
from elm_megatron.hf.config import TASKS, DatasetChoice, EvalConfig
from elm_megatron.hf.perplexity import Document, documents, measure, windows
from elm_megatron.run_folder import RunFolder
from tests.elm_megatron.hf import cases


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
        task = tasks_run.load(name)
        data = Path(task["dataset_kwargs"]["data_files"]["test"])
        rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
        assert task["task"] == name
        assert len(rows) >= 12
        assert len({row["text"] for row in rows}) == len(rows)
        assert {row["answer"] for row in rows} == {0, 1, 2, 3}
        assert all(len(set(row["choices"])) == 4 for row in rows)
    with pytest.raises(InputError, match=r"tasks=hellaswag: .* elm_cloze_en, elm_cloze_nl"):
        tasks_run.load("hellaswag")


@pytest.mark.slow
def test_side_by_side(made: Callable[[str], cases.Made], corpus: Path, tmp_path: Path):
    """Two models, perplexity and tasks, one table and picture; each card gets its section."""
    pytest.importorskip("lm_eval", reason="needs the eval extra")
    from elm_megatron.hf.evaluate import evaluate

    folders = []
    for name in ("gqa", "mha"):
        shutil.copytree(made(name).hf, tmp_path / name)
        folders.append(tmp_path / name)
    config = EvalConfig(
        RunConfig("eval", str(tmp_path / "eval")), [str(f) for f in folders], max_documents=1, limit=4,
        tasks=list(TASKS), data=DatasetChoice(str(corpus)),
    )  # fmt: skip
    config.check()
    RunFolder(config.run.dir).create()
    results = evaluate(config)
    assert set(results) == {"gqa", "mha"}
    for result in results.values():
        assert set(result["tasks"]) == set(TASKS)
        assert all(0 <= task["accuracy"] <= 1 and task["items"] == 4 for task in result["tasks"].values())
    table = (tmp_path / "eval" / "evaluation.md").read_text()
    assert table.startswith("| measure | gqa | mha |")
    assert f"{results['mha']['perplexity']['all']['bits_per_byte']:.4g}" in table
    assert (tmp_path / "eval" / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    for folder in folders:
        text = (folder / "README.md").read_text()
        assert "Not evaluated yet" not in text
        assert f"{results[folder.name]['perplexity']['all']['perplexity']:.4g}" in text
