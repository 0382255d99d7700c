"""Fixtures of the engine's tests: warm ranks, and a tiny dataset, made once for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.small_dataset import make_dataset


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankPool]:
    """Four rank processes, shared by all tests."""
    pool = RankPool(4, tmp_path_factory.mktemp("rendezvous"))
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny tokenized dataset."""
    return make_dataset(tmp_path_factory.mktemp("data") / "small")
