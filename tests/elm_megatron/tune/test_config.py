"""What tuning's configuration refuses, and what may change when a tuning run goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from conf.errors import InputError
from conf.names import tuning_run_name
from conf.plain import plain
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.resume import check_resume
from elm_megatron.sources.source import base_for
from elm_megatron.tune.prepare import adopt, prepare
from slurm.jobs.record import resumable
from tests.elm_megatron.tune import configs


def config(**changes: Any) -> Any:
    """A configuration on an imagined base."""
    return configs.finetune_config(Path("runs/x"), Path("runs/base"), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ["qkv"]}, "tune.targets=qkv: allowed are q_proj, k_proj"),
        ({"targets": []}, "tune.targets="),
        ({"targets": ["q_proj", "q_proj"]}, "stands twice"),
        ({"r": 0}, "tune.r=0: must be at least 1"),
        ({"dropout": 1.0}, "tune.dropout=1.0"),
        ({"epochs": 1.0}, "give exactly one of the two"),
        ({"seq_length": 4096}, "tune.seq_length=4096 is longer than"),
        ({"precision": "fp8"}, "tune.precision=fp8: allowed are fp32, bf16"),
        ({"adapter_precision": "bf16"}, "needs tune.precision=bf16"),
        ({"stage": "rlhf"}, "stage=rlhf: allowed are sft, dpo"),
        ({"stage": "dpo", "packing": True}, "tune.packing=true: pairs"),
        ({"sft_files": []}, r"sft.files=\[\]: give at least one file"),
        ({"sft_weights": [1.0, 2.0]}, "2 numbers for the 1 files"),
        ({"sft_valid_fraction": 1.0}, "sft.valid_fraction=1.0"),
        ({"dpo_beta": 0.0}, "dpo.beta=0.0"),
        ({"dpo_label_smoothing": 0.5}, "dpo.label_smoothing=0.5"),
        ({"dpo_min_agreement": 0.5}, "dpo.min_agreement=0.5"),
        ({"tp": 2, "ranks": 2, "sp": True, "seq_length": 255}, "not a multiple of parallel.tp=2"),
        ({"patience": 0}, "tune.patience=0"),
        ({"eval_batches": 0}, "tune.eval_batches=0: must be at least 1, or null"),
        ({"seed": -1}, "tune.seed=-1: must be at least 0"),
        ({"beta2": 1.0}, "tune.beta2=1.0: must be at least 0 and below 1"),
        ({"stall_seconds": 0.0}, "tune.stall_seconds=0.0: must be above 0"),
    ],
)
def test_refusals(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(**changes)


def test_what_may_change_on_resume() -> None:
    old = plain(config())
    check_resume(old, plain(config(micro_batch_size=2, save_every=3, tp=2, ranks=2)), "runs/x")
    check_resume(plain(config(schedule="constant")), plain(config(schedule="constant", steps=30)), "runs/x")
    for changes, key in [
        ({"steps": 30}, "tune.steps=30"),
        ({"r": 8}, "tune.r=8"),
        ({"sft_files": ["a.json"]}, "sft.files="),
        ({"stage": "dpo"}, "stage=dpo"),
        ({"seed": 9}, "tune.seed=9"),
    ]:
        with pytest.raises(InputError, match=key):
            check_resume(old, plain(config(**changes)), "runs/x")


def test_a_run_that_stopped_early_is_finished_until_more_is_asked_for(tmp_path: Path) -> None:
    changes = {"schedule": "constant", "patience": 1}
    step = tmp_path / "x" / "checkpoints" / "step-00000003"
    step.mkdir(parents=True)
    (step / "manifest.json").write_text("{}")
    RunFolder(tmp_path / "x").update(state="done", step=3, steps=8)

    def told(steps: int) -> str | None:
        asked = configs.finetune_config(tmp_path / "x", tmp_path, steps=steps, **changes)
        return resumable(RunFolder(tmp_path / "x"), asked, None)

    assert told(8) == f"x is finished: 3 steps, see {tmp_path / 'x'}."
    assert told(12) is None


def test_a_base_that_goes_on_is_at_the_same_step_on_every_rank(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that sees a newer checkpoint reads the one that rank 0 saw."""
    from elm_megatron.engine import distributed
    from elm_megatron.tune.sft import Sft

    shutil.copytree(base, tmp_path / "base")
    (tmp_path / "base" / "checkpoints" / "step-00000099").mkdir()
    (tmp_path / "base" / "checkpoints" / "step-00000099" / "manifest.json").write_text("{}")
    seen: list[int] = []
    monkeypatch.setattr(distributed, "of_first", lambda step, device: seen.append(step) or 60)
    task = object.__new__(Sft)
    task.config, task.device = configs.finetune_config(tmp_path / "x", tmp_path / "base"), None
    task.run = RunFolder(tmp_path / "x")
    task.open_base()
    assert (seen, task.source.step, task.base.weights.step) == ([99], 60, 60)


def test_a_missing_source_names_the_command() -> None:
    with pytest.raises(InputError, match=r"python launch/pretrain\.py run\.name=nowhere"):
        base_for("nowhere", RunFolder("runs/x"))


def test_the_source_brings_its_own_model(base: Path) -> None:
    found = configs.finetune_config(Path("runs/x"), base)
    found.model.hidden_size = 4096
    assert adopt(found).step is None
    assert found.model.hidden_size == configs.base_model().hidden_size
    found.sft.files = ["nowhere.json"]
    with pytest.raises(InputError, match=r"nowhere\.json does not exist"):
        prepare(found)


@pytest.mark.parametrize(
    ("stage", "name", "content", "message"),
    [
        ("sft", "a.jsonl", '{"instruction": "x", "output": "y"}\n{"no": 1}', "a.jsonl: record 2 is neither"),
        ("sft", "a.jsonl", "", r"sft.files: .*a.jsonl holds nothing to learn from \(it is empty\)"),
        ("sft", "a.json", '[{"instruction": "x", "output": ""}]', r"\(skipped, no response: 1\)"),
        ("sft", "a.xlsx", "old", r"must be saved as \.xlsx"),
        ("dpo", "a.jsonl", '{"prompt": "x", "chosen": "y"}', "record 1 must hold the texts prompt"),
    ],
)
def test_files_are_read_before_anything_starts(
    stage: str, name: str, content: str, message: str, base: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    found = configs.finetune_config(
        tmp_path / "x", base, stage=stage, **{f"{stage}_files": [str(tmp_path / name)]}
    )
    with pytest.raises(InputError, match=message):
        prepare(found)


def test_stages_have_names_of_their_own() -> None:
    assert tuning_run_name("sft", "tiny", "sample") == "finetune-tiny-sample"
    assert tuning_run_name("dpo", "tiny", "sample") == "dpo-tiny-sample"
