"""Which stages of a chain are skipped. Torch-free: the run folders are made by hand."""

from __future__ import annotations

import os
import time
from pathlib import Path

import yaml

from elm_megatron import compose
from elm_megatron.pipeline import PipelineConfig
from elm_megatron.run_folder import RunFolder
from slurm import chain


def pipeline(*argv: str) -> PipelineConfig:
    found: list[PipelineConfig] = []
    compose.run("pipeline", PipelineConfig, lambda one: found.append(one), ["experiment=quickstart", *argv])
    return found[0]


def saved(path: Path, when: float, **record: object) -> RunFolder:
    run = RunFolder(path)
    run.checkpoints.mkdir(parents=True)
    run.latest.write_text("step-00000001")
    os.utime(run.latest, (when, when))
    run.update(**record)
    return run


def test_stages_share_one_configuration() -> None:
    config = pipeline("corpus.path=/works", "train.steps=7", "parallel.tp=1")
    assert config.run.name == "quickstart-tiny-works"
    assert config.preprocessing().corpus.path == "/works" and config.preprocessing().data.dir == "data/works"
    assert (
        config.pretraining().train.steps == 7
        and config.pretraining().run.name == "quickstart-tiny-works-pretrain"
    )
    assert config.tuning().source == config.pretraining().run.dir == "runs/quickstart-tiny-works-pretrain"
    assert config.exporting().source == config.tuning().run.dir
    assert config.measuring().source == config.exporting().run.dir


def test_an_output_older_than_its_source_is_made_again(tmp_path: Path) -> None:
    now = time.time()
    base = saved(tmp_path / "base", now - 100, state="done")
    assert chain.done_since(saved(tmp_path / "a", now, state="done", submitted=now - 50), base)
    assert not chain.done_since(saved(tmp_path / "b", now, state="done", submitted=now - 150), base)
    assert not chain.done_since(saved(tmp_path / "c", now, state="failed", submitted=now - 50), base)
    queued = [{"job": "1", "restart": 0, "step": 0, "time": now - 50}]  # began after the base had ended
    assert chain.done_since(saved(tmp_path / "d", now, state="done", submitted=now - 150, lives=queued), base)


def test_other_settings_make_a_dataset_again(tmp_path: Path) -> None:
    config = pipeline().preprocessing()
    run = saved(tmp_path / "run", 0.0, state="done")
    assert not chain.made_by(run, config)
    run.config.write_text(yaml.safe_dump(compose.plain(config)))
    assert chain.made_by(run, config)
    config.cluster.time = "30"
    assert chain.made_by(run, config)
    config.clean.min_block_tokens = 7
    assert not chain.made_by(run, config)
