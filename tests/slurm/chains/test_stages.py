"""What the stages of a chain take over from one that was begun by an earlier version."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from conf import compose
from conf.plain import plain
from conf.schema.pipeline import PipelineConfig
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.resume import check_resume
from slurm.chains.stages import stages


def tuning(*argv: str) -> object:
    """The configuration of the chain's finetune stage."""
    found: list[PipelineConfig] = []
    compose.run("pipeline", PipelineConfig, lambda one: found.append(one), ["run.name=x", *argv])
    return stages(found[0])[2].config


def test_a_chain_goes_on_with_the_share_that_it_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain held out 5% of the chat data where finetune.py held out 10%; now both have the one default."""
    monkeypatch.chdir(tmp_path)
    assert tuning().sft.valid_fraction == 0.1
    old = plain(tuning("sft.valid_fraction=0.05"))
    run = RunFolder("runs/x-finetune")
    run.create()
    run.config.write_text(yaml.safe_dump(old), encoding="utf-8")
    check_resume(old, plain(tuning()), "runs/x-finetune")
    assert tuning().sft.valid_fraction == 0.05
    assert tuning("sft.valid_fraction=0.2").sft.valid_fraction == 0.2
    run.config.write_text(
        yaml.safe_dump(old | {"sft": old["sft"] | {"valid_fraction": 0.1}}), encoding="utf-8"
    )
    assert tuning().sft.valid_fraction == 0.1
