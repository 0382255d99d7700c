"""What the tracker's tests share: a cache of their own, and jobs on the dev cluster."""

from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.devcluster.cluster import DevCluster

Submit = Callable[..., str]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has an empty cache, and every question goes to Slurm."""
    monkeypatch.setenv("ELM_QUEUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ELM_QUEUE_MAX_AGE", "0")
    return tmp_path / "cache"


@pytest.fixture
def submit(devcluster: DevCluster) -> Submit:
    """Submits a shell line to the dev cluster and returns its job id."""

    def run(*options: str, script: str = "sleep 300") -> str:
        return devcluster.command(
            "sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}"
        ).stdout.strip()

    return run
