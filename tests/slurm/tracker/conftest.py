"""What the tracker's tests share: a cache of their own, and jobs on the dev cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.devcluster.cluster import DevCluster
from slurm.tracker import nodes, squeue

Submit = Callable[..., str]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has an empty cache, and every question goes to Slurm."""
    monkeypatch.setenv("ELM_QUEUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ELM_QUEUE_MAX_AGE", "0")
    return tmp_path / "cache"


@pytest.fixture
def submit(devcluster: DevCluster) -> Submit:
    """Submit a shell line to the dev cluster and return its job id."""

    def run(*options: str, script: str = "sleep 300") -> str:
        return devcluster.command(
            "sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}"
        ).stdout.strip()

    return run


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """squeue and sinfo on PATH that answer with given rows, count their calls, and fail on demand."""
    fake = FakeSlurm(tmp_path / "fake")
    monkeypatch.setenv("PATH", f"{fake.folder}:{os.environ['PATH']}")
    return fake


class FakeSlurm:
    """Scripts named like Slurm's commands.

    Attributes:
        folder: holds the scripts, `calls` (a line per squeue call), and `down` while Slurm is silent.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        for name, fields in (("squeue", squeue.FIELDS), ("sinfo", nodes.FIELDS)):
            (folder / f"{name}.rows").write_text("")
            script = folder / name
            script.write_text(
                SCRIPT.format(python=sys.executable, folder=folder, name=name, width=len(fields))
            )
            script.chmod(0o755)

    def answer(self, jobs: list[dict[str, str]], node_rows: list[dict[str, str]] | None = None) -> None:
        """Set the queue: a dict of squeue's fields per job; what is missing is (null)."""
        for name, fields, rows in (("squeue", squeue.FIELDS, jobs), ("sinfo", nodes.FIELDS, node_rows or [])):
            lines = ("\t".join(row.get(field, "(null)") for field in fields) for row in rows)
            (self.folder / f"{name}.rows").write_text("\n".join(lines))

    def stop(self) -> None:
        (self.folder / "down").touch()

    def go(self) -> None:
        (self.folder / "down").unlink()

    @property
    def calls(self) -> int:
        file = self.folder / "calls"
        return len(file.read_text().splitlines()) if file.exists() else 0


# The separator is the part behind the first field's colon.
SCRIPT = """#!{python} -S
import os, sys, time
if "{name}" == "squeue":
    with open("{folder}/calls", "a") as file:
        file.write("call\\n")
    time.sleep(0.2)
if os.path.exists("{folder}/down"):
    sys.exit("{name}: error: Unable to contact slurm controller (connect failure)")
separator = sys.argv[-1].split(",")[0].partition(":")[2]
for line in open("{folder}/{name}.rows").read().split("\\n"):
    if line:
        sys.stdout.write("".join(field + separator for field in line.split("\\t")) + "\\n")
"""


def job_row(job_id: int, **fields: str) -> dict[str, str]:
    """A waiting one-node job in squeue's words."""
    return {
        "JobID": str(job_id),
        "JobArrayID": str(job_id),
        "UserName": "anna",
        "Account": "eur",
        "Partition": "low",
        "QOS": "normal",
        "State": "PENDING",
        "Reason": "Priority",
        "SubmitTime": "2026-03-01T08:00:00",
        "EligibleTime": "2026-03-01T08:00:00",
        "TimeLimit": "1:00:00",
        "TimeUsed": "0:00",
        "NumNodes": "1",
        "NumCPUs": "16",
        "tres-alloc": "cpu=16,mem=16G,node=1,billing=16,gres/gpu=4",
        "PriorityLong": "100",
        "RestartCnt": "0",
        "Name": "train",
    } | fields


@pytest.fixture
def rows() -> Callable[..., dict[str, str]]:
    return job_row
