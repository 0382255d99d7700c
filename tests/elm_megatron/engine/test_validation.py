"""Validation: every token counts once, and a run that is told to leave saves first."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from conf.schema.data import TrainingData
from data_prep.manifest import Manifest
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.engine import data, stratified
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


@pytest.mark.parametrize("at", [0, 6, 10])
def test_a_long_validation_is_broken_off_to_save(at: int, ranks: RankPool, tmp_path: Path) -> None:
    """SIGTERM one second into a validation of a minute; the next attempt makes it good."""
    changes = {"eval_every": 6, "save_every": 50, "micro_batch_size": 1, "global_batch_size": 4}
    data = make_dataset(tmp_path / "data", valid_tokens=120 * 64)
    config = pretrain_config(tmp_path / "run", data, 2, tp=2, **changes)
    run = rank_functions.folder(config)
    long = {"config": config, "at": at, "number": signal.SIGTERM}
    (outcome, saved), (other, asked) = ranks.run(2, rank_functions.train_with_long_validation, **long)
    assert outcome == other == "cancelled"
    assert 0 < saved["commit"] - asked["signal"] < 20, "of the sixty that the validation takes"
    assert committed(run)[0].name == f"step-{at:08d}"
    assert [row["step"] for row in run.read_metrics(run.valid)] == [step for step in (0, 6) if step < at]
    assert Checkpoint.open(committed(run)[0]).manifest["valid_loss"] is None
    assert ranks.run(2, rank_functions.train, config=config) == ["done"] * 2
    assert [row["step"] for row in run.read_metrics(run.valid)] == [0, 6, 10]
    assert [row["step"] for row in run.read_metrics()] == list(range(1, 11))
    for folder in committed(run):
        assert Checkpoint.open(folder).manifest["valid_loss"] is not None


def test_a_sample_of_the_split_weighs_languages_as_the_split_does(ranks: RankPool, tmp_path: Path) -> None:
    """Whatever their order; the weights are named, and those of the whole split give its mean."""
    folder = make_dataset(tmp_path / "data", languages=["nl", "en", "nl"], valid_tokens=6000)
    rows = {}
    for name, batches in (("whole", None), ("sample", 1), ("again", 1)):
        changes = {"eval_batches": batches, "global_batch_size": 16, "steps": 1}
        config = pretrain_config(tmp_path / name, folder, 2 if name == "again" else 1, **changes)
        run = rank_functions.folder(config)
        ranks.run(config.world_size, rank_functions.train, config=config)
        rows[name] = run.read_metrics(run.valid)[-1]
    whole, sample, again = rows.values()
    for row in rows.values():
        assert (row["weight_nl"], row["weight_en"]) == pytest.approx((2 / 3, 1 / 3), rel=1e-2)
        mean = row["weight_nl"] * row["loss_nl"] + row["weight_en"] * row["loss_en"]
        assert row["loss"] == pytest.approx(mean, rel=1e-9)
    assert sample["loss"] != whole["loss"]
    assert again["loss"] == pytest.approx(sample["loss"], rel=1e-4)  # the same samples over two ranks


def test_a_sample_has_every_language_and_its_share() -> None:
    sizes = {"en": 900, "nl": 90, "fy": 1}
    chosen = stratified.drawn(100, sizes, 7)
    assert {name: len(ids) for name, ids in chosen.items()} == {"en": 90, "nl": 9, "fy": 1}
    assert all(len(set(ids)) == len(ids) and ids.max() < sizes[name] for name, ids in chosen.items())
    assert chosen["en"].max() > 500, "not only those that come first"
    assert all((stratified.drawn(100, sizes, 7)[name] == ids).all() for name, ids in chosen.items())
    assert (stratified.drawn(100, sizes, 8)["en"] != chosen["en"]).any()
    assert stratified.allotted(5000, sizes) == sizes
    assert stratified.allotted(1, sizes) == {"en": 1, "nl": 1, "fy": 1}
