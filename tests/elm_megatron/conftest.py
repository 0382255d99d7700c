"""Fixtures of several rooms: warm ranks, datasets, and models trained on them; each is made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from conf.schema.hf import ExportConfig
from conf.schema.preprocess import DataConfig, PreprocessConfig, TokenizerConfig
from conf.schema.run import RunConfig
from data_prep.job import Preprocess
from tests.elm_megatron import model_jobs
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.executioner import Executioner
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.small_dataset import make_dataset
from tests.elm_megatron.tune import configs as tune_configs
from tests.elm_megatron.tune import rank_functions as tune_ranks

# (query groups, tied, layout)
VARIANTS = {
    "mha": (8, False, {}),
    "gqa": (2, False, {"tp": 2, "pp": 2}),
    "mha-tied": (8, True, {"tp": 2}),
    "gqa-tied": (2, True, {"tp": 2, "pp": 2, "vpp": 2}),
}


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


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tokenized sample corpus, with a vocabulary of 501 pieces."""
    folder = tmp_path_factory.mktemp("corpus") / "sample"
    Preprocess(PreprocessConfig(tokenizer=TokenizerConfig(model_jobs.VOCAB), data=DataConfig(str(folder))))()
    return folder


@pytest.fixture(scope="session")
def made(
    ranks: RankPool, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], model_jobs.Made]:
    """Gives a variant's run, trained a few steps under its layout, and its fp32 export; each is made once."""

    @cache
    def make(variant: str) -> model_jobs.Made:
        groups, tied, layout = VARIANTS[variant]
        folder = tmp_path_factory.mktemp(variant)
        world = layout.get("tp", 1) * layout.get("pp", 1)
        config = model_jobs.run_to_train(folder / "run", corpus, world, tied, groups, **layout)
        ranks.run(world, model_jobs.train, config=config)
        export = model_jobs.export_config(folder / "export", folder / "run", shard_gb=0.0004)
        ranks.run(1, model_jobs.export, config=export)
        return model_jobs.Made(folder / "run", folder / "export" / "model", config.model)

    return make


@pytest.fixture(scope="session")
def base(ranks: RankPool, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run pretrained for a few steps, for the tests of tuning."""
    folder = tmp_path_factory.mktemp("bases") / "base"
    config = pretrain_config(folder, corpus, model=tune_configs.base_model(), steps=60)
    tune_configs.folder_of(config)
    assert ranks.run(1, tune_ranks.pretrain, config=config) == ["done"]
    return folder


@pytest.fixture(scope="session")
def exported(ranks: RankPool, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same base as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("exports") / "export"
    config = ExportConfig(run=RunConfig(folder.name, str(folder)), source=str(base), dtype="fp32")
    tune_configs.folder_of(config)
    assert ranks.run(1, tune_ranks.export, config=config) == ["done"]
    return folder / "model"


@pytest.fixture
def executioner(tmp_path: Path) -> Iterator[Executioner]:
    """Ends exports and imports at a point."""
    started = Executioner(tmp_path / "rendezvous")
    yield started
    started.close()
