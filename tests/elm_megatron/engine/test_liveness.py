"""A rank that falls silent is named by the one that listens to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import cases
from tests.elm_megatron.rank_pool import RankPool


@pytest.mark.parametrize("silent", [0, 1])
def test_silent_rank_is_named(silent: int, ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    config = pretrain_config(tmp_path / "run", small_data, 2, stall_seconds=1.0)
    said = ranks.run(2, cases.train_and_stop_beating, config=config, silent=silent)
    assert said[1 - silent].startswith(f"{silent} ")
    assert said[1 - silent].endswith(" 7\n")
    assert said[silent] == ""
