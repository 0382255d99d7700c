"""A real dataset made of the sample corpus, shared by the Hugging Face tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.config import DataConfig, PreprocessConfig, TokenizerConfig
from data_prep.job import Preprocess
from tests.elm_megatron.hf.cases import VOCAB


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tokenized sample corpus, with a vocabulary of 501 pieces."""
    folder = tmp_path_factory.mktemp("corpus") / "sample"
    Preprocess(PreprocessConfig(tokenizer=TokenizerConfig(VOCAB), data=DataConfig(str(folder))))()
    return folder
