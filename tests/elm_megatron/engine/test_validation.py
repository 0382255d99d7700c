"""Validation: every token counts once, and a run that is told to leave saves first."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from conf.schema.data import TrainingData
from data_prep.manifest import Manifest
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.engine import data
from elm_megatron.run.steps import committed
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.small_dataset import make_dataset


def test_no_sample_inherits_the_padding_of_another(tmp_path: Path) -> None:
    """Whichever is asked for first."""
    folder = make_dataset(tmp_path / "data", valid_tokens=700)
    manifest = Manifest.load(folder)
    options = TrainingData(dir=str(folder))
    samples = len(data.open_split(manifest, "valid", 64, 1, options))
    for first in range(samples):
        dataset = data.open_split(manifest, "valid", 64, 1, options)
        counted = {i: dataset[i]["loss_mask"].sum() for i in [first, *range(samples)]}
        assert sum(counted.values()) == manifest.splits["valid"].tokens - 1


@pytest.mark.parametrize("last", [False, True], ids=["between", "at the last step"])
def test_who_must_leave_saves_before_validating(
    last: bool, ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    """The next life, or this one after its last save, makes good for it and tells the checkpoint."""
    step = 10 if last else 6
    changes = {"eval_every": 3, "save_every": 50, "keep_best": True}
    calm = pretrain_config(tmp_path / "calm", small_data, 2, tp=2, **changes)
    run = pretrain_config(tmp_path / "run", small_data, 2, tp=2, **changes)
    expected, found = rank_functions.folder(calm), rank_functions.folder(run)
    ranks.run(2, rank_functions.train, config=calm)
    outcomes = ranks.run(2, rank_functions.train_with_signal, config=run, step=step, number=signal.SIGUSR2)
    assert outcomes == ["done" if last else "requeue"] * 2
    measured = [row["step"] for row in found.read_metrics(found.valid)]
    assert measured == ([0, 3, 6, 9, 10] if last else [0, 3])
    if not last:
        assert Checkpoint.open(committed(found)[0]).manifest["valid_loss"] is None
        ranks.run(2, rank_functions.train, config=run)
    rows = [[(row["step"], row["loss"]) for row in one.read_metrics(one.valid)] for one in (found, expected)]
    assert rows[0] == rows[1]
    losses = dict(rows[1])
    for folder in committed(found):
        manifest = Checkpoint.open(folder).manifest
        assert manifest["valid_loss"] == losses[manifest["step"]]
