"""A dataset and runs made by an earlier commit resume, export and verify; see fixtures/README.md."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from conf import typed
from conf.plain import plain
from conf.removed import without_removed
from conf.schema.hf import ExportConfig
from conf.schema.pretrain import PretrainConfig
from conf.schema.run import RunConfig
from conf.schema.tune import FinetuneConfig
from data_prep.verify import verify
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.resume import check_resume
from elm_megatron.sources.places import run_config
from elm_megatron.tune.prepare import adopt
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.tune import rank_functions as tuning_ranks

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "run-62c88f5"
PROCESSOR = "AMD EPYC"
SAME = ("step", "tokens", "loss", "lr", "grad_norm")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the dataset and the runs, in another place than they were made in."""
    return Path(shutil.copytree(OLD, tmp_path / "project"))


def reopened(run: RunFolder, schema: type, **paths: str) -> Any:
    """The configuration of a run as the same command gives it today, its paths in the new place."""
    values = without_removed(run_config(run))
    values["run"]["dir"] = str(run.path)
    values |= {key: path for key, path in paths.items() if key == "source"}
    if "data_dir" in paths:
        values["data"]["dir"] = paths["data_dir"]
    config = typed.build(schema, values)
    config.check()
    return config


def compare(mine: list[dict], before: list[dict], versions: dict[str, str]) -> None:
    """Bit for bit with the same torch on the same processor, else within rounding."""
    assert [row["step"] for row in mine] == [row["step"] for row in before]
    processor = Path("/proc/cpuinfo")
    exact = versions["torch"] == torch.__version__ and PROCESSOR in (
        processor.read_text(encoding="utf-8") if processor.exists() else ""
    )
    for a, b in zip(mine, before, strict=True):
        for key in SAME:
            assert a[key] == (b[key] if exact else pytest.approx(b[key], rel=1e-4)), (a["step"], key)


def test_the_dataset_verifies(old: Path) -> None:
    assert verify(old / "data" / "sample") == []


def test_pretraining_goes_on_bit_identically_and_exports(old: Path, ranks: RankPool, tmp_path: Path) -> None:
    run = RunFolder(old / "runs" / "pretrain")
    before, record = run.read_metrics(), run.read()
    config = reopened(run, PretrainConfig, data_dir=str(old / "data" / "sample"))
    check_resume(run_config(run), plain(config), str(run.path))
    run.update(life=None)
    assert ranks.run(2, rank_functions.train, config=config) == ["done"] * 2
    compare(run.read_metrics(), before, record["versions"])
    assert [row["step"] for row in run.read_metrics(run.lost_metrics) if "lr" in row] == list(range(7, 13))
    assert [row["step"] for row in run.read_metrics(run.valid)] == [0, 6, 12]
    assert run.read()["state"] == "done"
    run.config.write_text(yaml.safe_dump(plain(config)), encoding="utf-8")
    export = ExportConfig(RunConfig("export", str(tmp_path / "export")), str(run.path), dtype="fp32")
    RunFolder(export.run.dir).create()
    assert ranks.run(1, tuning_ranks.export, config=export) == ["done"]
    assert (tmp_path / "export" / "model" / "model.safetensors").exists()


def test_tuning_goes_on_bit_identically(old: Path, ranks: RankPool) -> None:
    run = RunFolder(old / "runs" / "finetune")
    before, record = run.read_metrics(), run.read()
    base = RunFolder(old / "runs" / "pretrain")
    moved = reopened(base, PretrainConfig, data_dir=str(old / "data" / "sample"))
    base.config.write_text(yaml.safe_dump(plain(moved)), encoding="utf-8")
    config = reopened(run, FinetuneConfig, source=f"{base.path}@6")
    adopt(config)
    run.update(life=None)
    assert ranks.run(1, tuning_ranks.finetune, config=config) == ["done"]
    compare(run.read_metrics(), before, record["versions"])
    assert run.read()["state"] == "done"
    assert (run.path / "adapter" / "adapter_config.json").exists()
