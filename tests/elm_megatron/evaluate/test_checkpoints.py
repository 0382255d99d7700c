"""Checkpoints of runs measured by one process: the same figures as `launch/eval.py` gives of an export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from conf.errors import InputError
from conf.schema.hf import DatasetChoice, EvalConfig
from conf.schema.run import RunConfig
from elm_megatron.evaluate import checkpoints, evaluate, perplexity
from elm_megatron.run import evaluations
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.source import at_checkpoint, resolve
from tests.elm_megatron.model_jobs import Made
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.tune import configs, rank_functions


def with_settings(run: RunFolder, **settings: object) -> RunFolder:
    values = yaml.safe_load(run.config.read_text())
    run.config.write_text(yaml.safe_dump(values | {"eval": {"every_checkpoint": True, **settings}}))
    return run


def test_a_checkpoint_of_any_layout_has_the_figures_of_its_export(
    made: Callable[[str], Made], corpus: Path, tmp_path: Path
) -> None:
    given = made("gqa")  # tp=2, pp=2
    shutil.copytree(given.run, tmp_path / "run")
    run = with_settings(RunFolder(tmp_path / "run"), tasks=[])
    step = run.latest_step() or 0
    checkpoints.evaluate_step(run, step)
    found = json.loads(evaluations.place(run, step).read_text())
    config = EvalConfig(
        RunConfig("x", str(tmp_path)), str(given.hf), tasks=[], data=DatasetChoice(str(corpus))
    )
    source = resolve(str(given.hf))
    works = perplexity.documents(evaluate.dataset(config, source), "valid", None)
    export = evaluate.measure(config, source, None, works, [], tmp_path)
    for group, figures in export["perplexity"].items():
        assert found["perplexity"][group]["loss"] == pytest.approx(figures["loss"], abs=1e-5), group
    assert found["dtype"] == export["dtype"] == "fp32"
    assert list((run.tensorboard / "evaluations").glob("events*"))
    assert "Checkpoints: bits per byte, language" in (run.path / "report.html").read_text(encoding="utf-8")

    before = evaluations.place(run, step).stat()
    checkpoints.evaluate_step(run, step)
    assert evaluations.place(run, step).stat() == before  # not repeated


def test_what_cannot_be_measured_is_said_in_a_file_once(made: Callable[[str], Made], tmp_path: Path) -> None:
    shutil.copytree(made("mha").run, tmp_path / "run")
    run = with_settings(RunFolder(tmp_path / "run"), tasks=["no-such-task"])
    step = run.latest_step() or 0
    with pytest.raises(InputError, match="no-such-task"):
        checkpoints.evaluate_step(run, step)
    assert "no task of that name" in evaluations.failures(run)[step]
    assert evaluations.due(run) == [] and not list(evaluations.folder(run).glob("*.running"))
    checkpoints.evaluate_step(run, step + 1)  # retention was faster
    assert list(evaluations.failures(run)) == [step]


def test_a_tuning_run_is_measured_at_every_step_of_its_adapter(
    ranks: RankPool, base: Path, corpus: Path, tmp_path: Path
) -> None:
    config = configs.finetune_config(tmp_path / "tuned", base, 2, tp=2, steps=4, save_every=2, lr=1e-2)
    run = configs.folder_of(config)
    assert ranks.run(2, rank_functions.finetune, config=config) == ["done"] * 2
    with_settings(run, tasks=["elm_cloze_nl"], limit=4)
    for step in (2, 4):
        checkpoints.evaluate_step(run, step)
    first, last = evaluations.results(run)
    assert first["perplexity"]["all"]["loss"] != last["perplexity"]["all"]["loss"]
    assert 0 < last["tasks"]["elm_cloze_nl"]["bits_per_byte"] < 20
    published, stored = resolve(str(run.path)).weights, at_checkpoint(run, 4).weights
    for name, tensor in published.part(0).items():
        assert tensor.equal(stored.part(0)[name]), name
