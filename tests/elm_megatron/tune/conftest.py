"""The dataset of the tests of tuning: the one of all rooms."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tune_data(corpus: Path) -> Path:
    """Folder of the tokenized sample corpus."""
    return corpus
