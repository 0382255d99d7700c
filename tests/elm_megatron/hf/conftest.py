"""A real dataset made of the sample corpus, and real runs on it, shared by the Hugging Face tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from conf.schema.preprocess import DataConfig, PreprocessConfig, TokenizerConfig
from data_prep.job import Preprocess
from tests.elm_megatron.hf import cases
from tests.elm_megatron.hf.killed import Executioner
from tests.elm_megatron.rank_pool import RankPool

# (query groups, tied, layout)
VARIANTS = {
    "mha": (8, False, {}),
    "gqa": (2, False, {"tp": 2, "pp": 2}),
    "mha-tied": (8, True, {"tp": 2}),
    "gqa-tied": (2, True, {"tp": 2, "pp": 2, "vpp": 2}),
}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tokenized sample corpus, with a vocabulary of 501 pieces."""
    folder = tmp_path_factory.mktemp("corpus") / "sample"
    Preprocess(PreprocessConfig(tokenizer=TokenizerConfig(cases.VOCAB), data=DataConfig(str(folder))))()
    return folder


@pytest.fixture(scope="session")
def made(
    ranks: RankPool, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], cases.Made]:
    """Gives a variant's run, trained a few steps under its layout, and its fp32 export; each is made once."""

    @cache
    def make(variant: str) -> cases.Made:
        groups, tied, layout = VARIANTS[variant]
        folder = tmp_path_factory.mktemp(variant)
        world = layout.get("tp", 1) * layout.get("pp", 1)
        config = cases.run_to_train(folder / "run", corpus, world, tied, groups, **layout)
        ranks.run(world, cases.train, config=config)
        export = cases.export_config(folder / "export", folder / "run", shard_gb=0.0004)
        ranks.run(1, cases.export, config=export)
        return cases.Made(folder / "run", folder / "export" / "model", config.model)

    return make


@pytest.fixture
def executioner(tmp_path: Path) -> Iterator[Executioner]:
    """Ends exports and imports at a point."""
    started = Executioner(tmp_path / "rendezvous")
    yield started
    started.close()
