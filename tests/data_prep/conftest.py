"""Settings and corpora for the data preparation tests."""

import os
import random
from pathlib import Path

import pytest

from conf.schema.preprocess import PreprocessConfig

SAMPLE = Path(__file__).resolve().parents[2] / "data_prep" / "sample"


def settings(folder: Path, **changes) -> PreprocessConfig:
    """A config whose dataset goes into `folder`; changes are written ``corpus__path=…``."""
    config = PreprocessConfig()
    config.data.dir = str(folder)
    for key, value in changes.items():
        target = config
        *path, last = key.split("__")
        for name in path:
            target = getattr(target, name)
        assert hasattr(target, last), key
        setattr(target, last, value)
    return config


def sample_words() -> list[str]:
    """Every word of the sample corpus, as often as it stands there."""
    text = " ".join(path.read_text() for path in sorted(SAMPLE.glob("*.txt")))
    return text.replace("\\n", " ").split()


def write_corpus(folder: Path, works: int, words: int, seed: int = 0) -> Path:
    """Works of random words with the sample's frequencies, in EUR's layout; no two are alike."""
    folder.mkdir(parents=True)
    known, generator = sample_words(), random.Random(seed)
    for number in range(works):
        lines = []
        for _ in range(words // 100):
            block = generator.choices(known, k=100)
            lines.append("\\n".join(" ".join(block[start : start + 14]) for start in range(0, 100, 14)))
        (folder / f"work-{number:04d}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def elm_sample() -> Path:
    """The folder with two real works, where somebody has it."""
    places = [os.environ.get("ELM_SAMPLE_DIR"), Path(__file__).resolve().parents[3] / "shared" / "elm-sample"]
    for place in filter(None, places):
        if Path(place).is_dir():
            return Path(place)
    pytest.skip("no folder of real works: set ELM_SAMPLE_DIR")
