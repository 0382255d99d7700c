"""A WSD run that is lengthened after its decay began goes on from before it, or is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conf.errors import InputError
from elm_megatron.run.decay import last_before_decay
from elm_megatron.run.steps import committed
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool

WSD = {"schedule": "wsd", "wsd_decay_steps": 4, "min_lr": 0.0, "save_every": 3, "keep_last": 1}


def test_lengthened_after_the_decay(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    """The last stable step is kept for it; the rate never jumps; the losses are those of one long run."""
    whole = pretrain_config(tmp_path / "whole", small_data, steps=16, **WSD)
    straight = rank_functions.folder(whole)
    ranks.run(1, rank_functions.train, config=whole)
    short = pretrain_config(tmp_path / "run", small_data, 2, tp=2, steps=10, **WSD)
    run = rank_functions.folder(short)
    ranks.run(2, rank_functions.train, config=short)
    assert [folder.name[-2:] for folder in committed(run)] == ["10", "06"]
    longer = pretrain_config(tmp_path / "run", small_data, 2, tp=2, steps=16, **WSD)
    assert ranks.run(2, rank_functions.train, config=longer) == ["done"] * 2
    mine, expected = run.read_metrics(), straight.read_metrics()
    assert [row["lr"] for row in mine] == [row["lr"] for row in expected]
    for a, b in zip(mine, expected, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
    assert (run.checkpoints / "decayed-step-00000010" / "manifest.json").exists()


def test_lengthened_without_a_step_before_the_decay_is_refused(
    ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    short = pretrain_config(tmp_path / "run", small_data, steps=10, **WSD)
    run = rank_functions.folder(short)
    ranks.run(1, rank_functions.train, config=short)
    for folder in committed(run)[1:]:
        shutil.rmtree(folder)
    before = run.metrics.read_bytes()
    longer = pretrain_config(tmp_path / "run", small_data, steps=16, **WSD)
    (said,) = ranks.run(1, rank_functions.train_refused, config=longer)
    assert said.startswith("train.steps=16: ") and "began its decay after step 6 of 10" in said
    assert run.metrics.read_bytes() == before and committed(run)[0].name == "step-00000010"
    with pytest.raises(InputError, match=r"train\.steps=16"):  # the launcher says so before it submits
        last_before_decay(run, 16, 4, "train")
    assert last_before_decay(run, 10, 4, "train") is None


def test_lengthened_before_the_decay_goes_on(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    import signal

    first = pretrain_config(tmp_path / "run", small_data, steps=10, **WSD)
    run = rank_functions.folder(first)
    ranks.run(1, rank_functions.train_with_signal, config=first, step=5, number=signal.SIGTERM)
    longer = pretrain_config(tmp_path / "run", small_data, steps=12, **WSD)
    assert ranks.run(1, rank_functions.train, config=longer) == ["done"]
    assert [row["step"] for row in run.read_metrics()] == list(range(1, 13))
    assert not list(run.checkpoints.glob("decayed-*"))
