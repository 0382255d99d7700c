"""What a run has cost: every attempt counts, also those that ended badly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool


@pytest.mark.parametrize("killed", [False, True], ids=["broken", "killed"])
def test_attempts_that_ended_badly_count(
    killed: bool, ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    """Three attempts, each of 0.1 s a step; two end before a checkpoint of their own."""
    config = pretrain_config(tmp_path / "run", small_data, steps=20, save_every=2)
    run = rank_functions.folder(config)
    spent = []
    for step in (10, 16, 99):
        changes = {"config": config, "step": step, "killed": killed}
        ((seconds, record),) = ranks.run(1, rank_functions.train_until_it_breaks, **changes)
        spent.append(seconds)
        if not killed:
            assert len(record["attempt_costs"]) == len(spent)
            assert record["seconds"] > 0.1 * (step - 1 if step == 10 else 1)
    record = run.read()
    assert record["state"] == "done"
    assert len(record["attempt_costs"]) == 3
    # Loading before the loop is not counted, nor after the last row of one that was killed.
    assert 2.0 < record["seconds"] <= sum(spent)
    assert record["seconds"] == pytest.approx(sum(spent), abs=3 * 1.5)
    assert record["kwh"] == pytest.approx(record["seconds"], abs=3 * 1.5) and record["kwh"] > 1.9
    assert all(attempt["seconds"] > 0 for attempt in record["attempt_costs"])


def test_a_run_of_an_earlier_version_keeps_its_sums(
    ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    config = pretrain_config(tmp_path / "run", small_data, steps=2)
    run = rank_functions.folder(config)
    run.update(seconds=100.0, save_seconds=3.0, kwh=0.5)
    ranks.run(1, rank_functions.train, config=config)
    record = run.read()
    assert 100.0 < record["seconds"] < 200.0 and record["save_seconds"] > 3.0
    assert record["kwh"] >= 0.5
