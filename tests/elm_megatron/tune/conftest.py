"""A pretrained base and its export, made once for the tests of tuning."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.schema.hf import ExportConfig
from conf.schema.preprocess import DataConfig, PreprocessConfig, TokenizerConfig
from conf.schema.run import RunConfig
from data_prep.job import Preprocess
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.tune import cases


@pytest.fixture(scope="session")
def tune_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tokenized sample corpus."""
    folder = tmp_path_factory.mktemp("tune-data") / "sample"
    Preprocess(PreprocessConfig(tokenizer=TokenizerConfig(cases.VOCAB), data=DataConfig(str(folder))))()
    return folder


@pytest.fixture(scope="session")
def base(ranks: RankPool, tune_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run pretrained for a few steps."""
    folder = tmp_path_factory.mktemp("bases") / "base"
    config = pretrain_config(folder, tune_data, model=cases.base_model(), steps=60)
    cases.folder_of(config)
    assert ranks.run(1, cases.pretrain, config=config) == ["done"]
    return folder


@pytest.fixture(scope="session")
def exported(ranks: RankPool, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("exports") / "export"
    config = ExportConfig(run=RunConfig(folder.name, str(folder)), source=str(base), dtype="fp32")
    cases.folder_of(config)
    assert ranks.run(1, cases.export, config=config) == ["done"]
    return folder / "model"
