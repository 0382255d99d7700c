"""Tuning runs: resuming, early stop, layouts with dropout off, preferences, and what is held in memory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from conf.schema.tune import TARGETS
from data_prep.tokenizer import Tokenizer
from elm_megatron.checkpoint import manifest
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import committed
from elm_megatron.sources import adapters
from elm_megatron.tune.pairs import PairData
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.tune import configs, rank_functions

SAME = ("loss", "grad_norm", "tokens", "lr")


def run(ranks: RankPool, config: Any) -> list[dict]:
    """Tune and return the rows of metrics.jsonl."""
    folder = configs.folder_of(config)
    assert (
        ranks.run(config.world_size, rank_functions.finetune, config=config) == ["done"] * config.world_size
    )
    return folder.read_metrics()


@pytest.mark.parametrize(
    ("stage", "layout"), [("sft", {"tp": 2, "sp": True}), ("sft", {"packing": True}), ("dpo", {"pp": 2})]
)
def test_resume_is_bit_identical(
    stage: str, layout: dict, ranks: RankPool, base: Path, tmp_path: Path
) -> None:
    """With dropout. A second life from the middle repeats the first one's numbers."""
    world = max(layout.get("tp", 1), layout.get("pp", 1))
    changes = {"steps": 8, "r": 8, "alpha": 16.0, "dropout": 0.2, "lr": 5e-3, "min_lr": 5e-3, "save_every": 4}
    changes |= {"schedule": "constant", "micro_batch_size": 2, "global_batch_size": 4, **layout}
    whole = run(ranks, configs.finetune_config(tmp_path / "whole", base, world, stage, **changes))
    first = configs.finetune_config(tmp_path / "two", base, world, stage, **{**changes, "steps": 4})
    run(ranks, first)
    rows = run(ranks, configs.finetune_config(tmp_path / "two", base, world, stage, **changes))
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [[row[k] for k in SAME] for row in rows] == [[row[k] for k in SAME] for row in whole]
    assert whole[-1]["tokens"] > whole[0]["tokens"] > 0


def test_resume_in_another_layout(ranks: RankPool, base: Path, tmp_path: Path) -> None:
    """Half of the steps on two tensor-parallel ranks, the rest on two stages; all projections."""
    changes = {"steps": 8, "r": 8, "alpha": 16.0, "schedule": "constant", "targets": list(TARGETS)}
    whole = run(ranks, configs.finetune_config(tmp_path / "whole", base, **changes))
    run(ranks, configs.finetune_config(tmp_path / "two", base, 2, tp=2, **{**changes, "steps": 4}))
    config = configs.finetune_config(tmp_path / "two", base, 2, pp=2, **{**changes, "micro_batch_size": 2})
    rows = run(ranks, config)
    assert len(rows) == 8
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(rows, whole, strict=True)) < 1e-5
    assert max(abs(a["grad_norm"] / b["grad_norm"] - 1) for a, b in zip(rows, whole, strict=True)) < 1e-3


def test_another_data_file_is_refused_on_resume(ranks: RankPool, base: Path, tmp_path: Path) -> None:
    source = Path(adapters.__file__).parents[1] / "tune" / "sample" / "instructions.jsonl"
    copy = tmp_path / "data.jsonl"
    copy.write_text(source.read_text())
    changes = {"steps": 2, "r": 4, "alpha": 8.0, "sft_files": [str(copy)], "schedule": "constant"}
    run(ranks, configs.finetune_config(tmp_path / "x", base, **changes))
    copy.write_text("".join(reversed(source.read_text().splitlines(keepends=True))))
    config = configs.finetune_config(tmp_path / "x", base, **{**changes, "steps": 4})
    (sentence,) = ranks.run(1, rank_functions.finetune_to_refusal, config=config)
    assert "another data_sha256" in sentence


def test_rows_made_in_another_way_are_refused_on_resume(ranks: RankPool, base: Path, tmp_path: Path) -> None:
    """Packing is part of a run's identity; checkpoints of earlier versions do not say whether they packed."""
    changes = {"steps": 2, "r": 4, "alpha": 8.0, "schedule": "constant"}
    run(ranks, configs.finetune_config(tmp_path / "x", base, **changes))
    config = configs.finetune_config(tmp_path / "x", base, packing=True, **{**changes, "steps": 4})
    (sentence,) = ranks.run(1, rank_functions.finetune_to_refusal, config=config)
    assert "another packing (False before, True now)" in sentence
    folder = RunFolder(config.run.dir)
    newest = Checkpoint.open(committed(folder)[0])
    manifest.write(
        newest.folder, {k: v for k, v in newest.manifest.items() if k not in ("packing", "sha256")}
    )
    assert len(run(ranks, configs.finetune_config(tmp_path / "x", base, **{**changes, "steps": 4}))) == 4


def test_early_stop_keeps_the_best(ranks: RankPool, base: Path, tmp_path: Path) -> None:
    """A rate far too high: the validation loss soon only rises."""
    config = configs.finetune_config(
        tmp_path / "x", base, steps=60, r=16, alpha=32.0, lr=1e-2, min_lr=1e-2, eval_every=2, patience=2
    )
    rows = run(ranks, config)
    folder = RunFolder(config.run.dir)
    valid = [row["loss"] for row in folder.read_metrics(folder.valid)]
    best = valid.index(min(valid))
    assert len(rows) < 60
    assert len(valid) - 1 - best == 2
    assert folder.read()["state"] == "done"
    adapter = adapters.read(folder.path / "adapter", config.model)
    assert best > 0 and adapter.facts["step"] == 2 * best


def test_early_stop_knows_that_nothing_was_better_than_the_start(
    ranks: RankPool, base: Path, tmp_path: Path
) -> None:
    """A rate that spoils the model at once, and a second life that begins at the checkpoint of step 0."""
    changes = {"r": 8, "alpha": 16.0, "lr": 100.0, "min_lr": 100.0, "schedule": "constant"}
    changes |= {"steps": 30, "eval_every": 1, "patience": 2}
    config = configs.finetune_config(tmp_path / "x", base, **changes)
    rows = run(ranks, config)
    folder = RunFolder(config.run.dir)
    assert [row["step"] for row in rows] == [1, 2]
    assert adapters.read(folder.path / "adapter", config.model).facts["step"] == 0
    for step in folder.path.glob("checkpoints/step-*[12]"):
        shutil.rmtree(step)
    (folder.path / "checkpoints/latest").write_text("step-00000000")
    assert [row["loss"] for row in run(ranks, config)] == [row["loss"] for row in rows]
    assert [row["step"] for row in folder.read_metrics(folder.valid)] == [0, 1, 2]


def test_dpo_loss_equals_its_formula(
    ranks: RankPool, base: Path, exported: Path, corpus: Path, tmp_path: Path
) -> None:
    """The first steps of DPO from a tuned adapter, computed again with Hugging Face and PEFT."""
    start = configs.finetune_config(tmp_path / "sft", base, r=8, alpha=16.0, steps=6, lr=1e-2, min_lr=1e-2)
    run(ranks, start)
    config = configs.finetune_config(
        *(tmp_path / "dpo", tmp_path / "sft", 2, "dpo"),
        tp=2,
        sp=True,
        r=8,
        alpha=16.0,
        steps=1,
        dpo_beta=0.3,
        dpo_label_smoothing=0.1,
    )
    (row,) = run(ranks, config)
    pairs = PairData.read(config, Tokenizer.load(corpus)).train
    import peft

    policy = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32), tmp_path / "sft" / "adapter"
    ).eval()
    total = 0.0
    ids = pairs.ids(0, 8)
    for i in ids:
        ratios = []
        for example in (pairs.both.examples[i], pairs.both.examples[i + len(pairs)]):
            with torch.no_grad():
                ours = answer_log_prob(policy, example)
                with policy.disable_adapter():
                    ratios.append(ours - answer_log_prob(policy, example))
        margin = 0.3 * (ratios[0] - ratios[1])
        total -= 0.9 * torch.nn.functional.logsigmoid(margin) + 0.1 * torch.nn.functional.logsigmoid(-margin)
    assert abs(row["loss"] - total.item() / 8) < 1e-5
    assert abs(row["loss"] - 0.6931) > 1e-4  # the tuned adapter is not the reference


def answer_log_prob(model: torch.nn.Module, example: Any) -> torch.Tensor:
    """Σ log p of an example's answer."""
    tokens = torch.from_numpy(example.ids.astype("int64"))[None]
    each = torch.log_softmax(model(tokens[:, :-1]).logits[0], -1).gather(1, tokens[0, 1:, None])[:, 0]
    return each[torch.from_numpy(example.answer[1:])].sum()


@pytest.mark.parametrize("layout", [{"tp": 2, "sp": True}, {"pp": 2}, {"pp": 2, "vpp": 2}, {}])
def test_dpo_layouts_agree(layout: dict, ranks: RankPool, base: Path, tmp_path: Path, dpo_one: list) -> None:
    config = configs.finetune_config(tmp_path / "x", base, 2, "dpo", **{**DPO, **layout})
    rows = run(ranks, config)
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(rows, dpo_one, strict=True)) < 1e-5
    assert max(abs(a["grad_norm"] / b["grad_norm"] - 1) for a, b in zip(rows, dpo_one, strict=True)) < 1e-3


DPO = {"r": 8, "alpha": 16.0, "steps": 5, "lr": 1e-2, "min_lr": 1e-2, "micro_batch_size": 2}


@pytest.fixture(scope="module")
def dpo_one(ranks: RankPool, base: Path, tmp_path_factory: pytest.TempPathFactory) -> list:
    """DPO on one rank; the loss falls below that of a coin."""
    config = configs.finetune_config(tmp_path_factory.mktemp("dpo") / "one", base, 1, "dpo", **DPO)
    rows = run(ranks, config)
    assert abs(rows[0]["loss"] - 0.693147) < 1e-5
    assert rows[-1]["loss"] < 0.69
    folder = RunFolder(config.run.dir)
    before, after = folder.read_metrics(folder.valid)
    assert before["margin"] == 0.0
    assert after["margin"] > 0.0
    return rows


def test_the_frozen_base_has_no_gradients_and_no_optimizer_state(
    ranks: RankPool, base: Path, tmp_path: Path
) -> None:
    config = configs.finetune_config(tmp_path / "x", base, r=8, alpha=16.0)
    (held,) = ranks.run(1, rank_functions.held_bytes, config=config)
    trained = config.tune.trainable_parameters(config.model)
    assert held["trained"] == trained
    assert held["frozen"] > 10 * trained
    assert held["frozen gradients"] == 0
    assert trained <= held["gradient elements"] < trained + 4096  # a buffer is rounded up
    assert held["moment elements"] == 2 * trained
    assert held["optimizer state elements"] == 2 * trained


@pytest.mark.parametrize("recompute", ["full", "selective"])
@pytest.mark.parametrize(("precision", "adapter"), [("fp32", "fp32"), ("bf16", "fp32"), ("bf16", "bf16")])
def test_recompute_and_bf16(
    recompute: str, precision: str, adapter: str, ranks: RankPool, base: Path, tmp_path: Path
) -> None:
    changes = {"r": 8, "alpha": 16.0, "steps": 3, "precision": precision, "adapter_precision": adapter}
    plain = run(ranks, configs.finetune_config(tmp_path / "a", base, **changes))
    again = run(ranks, configs.finetune_config(tmp_path / "b", base, recompute=recompute, **changes))
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(plain, again, strict=True)) < tolerance
    assert all(row["grad_norm"] > 0.05 for row in again)


def test_source_can_be_a_hugging_face_folder(
    ranks: RankPool, base: Path, exported: Path, tmp_path: Path
) -> None:
    changes = {"r": 8, "alpha": 16.0, "steps": 3}
    mine = run(ranks, configs.finetune_config(tmp_path / "a", base, **changes))
    theirs = run(ranks, configs.finetune_config(tmp_path / "b", exported, **changes))
    assert [row["loss"] for row in mine] == [row["loss"] for row in theirs]
    facts = [RunFolder(tmp_path / name).read()["base_fingerprint"] for name in "ab"]
    assert facts[0] == facts[1]
