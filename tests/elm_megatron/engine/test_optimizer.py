"""What an update does besides following the gradient."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool


@pytest.mark.parametrize(
    ("size", "changes"),
    [(1, {}), (2, {"distributed_optimizer": True}), (2, {"distributed_optimizer": False})],
)
def test_weight_decay_is_on_matrices_alone(
    size: int, changes: dict, ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    """A matrix shrinks by lr·decay = 0.05, a norm's weight stays."""
    config = pretrain_config(tmp_path / "run", small_data, size, weight_decay=5.0, **changes)
    rank_functions.folder(config)
    for factors in ranks.run(size, rank_functions.update_without_gradients, config=config):
        assert factors == {True: {0.95}, False: {1.0}}
