"""The build as the ranks of one Slurm step."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.job import Preprocess
from data_prep.manifest import Manifest
from data_prep.settings import to_mapping
from slurm.devcluster import processes
from tests.data_prep.conftest import settings, write_corpus

ROOT = Path(__file__).resolve().parents[2]


def test_four_nodes_under_srun_give_the_same_bytes(devcluster, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", works=25, words=2_400)
    one = settings(tmp_path / "one", corpus__path=str(corpus), preprocess__chunk_mb=0.04)
    Preprocess(one)()
    four = settings(tmp_path / "four", corpus__path=str(corpus), preprocess__chunk_mb=0.04)
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(to_mapping(four)))
    command = [
        "srun",
        "-N4",
        "-n4",
        "--mpi=pmi2",
        "--kill-on-bad-exit=1",
        sys.executable,
        "-m",
        "data_prep.job",
        "--ranks",
        "4",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name: info for path, info in Manifest.load(four.data_dir()).all_files()} == {
        path.name: info for path, info in Manifest.load(one.data_dir()).all_files()
    }


def launcher(corpus: Path, name: str, *overrides: str) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "launch/preprocess.py"),
        f"corpus.path={corpus}",
        "preprocess.chunk_mb=0.04",
        f"data.dir=data/{name}",
        f"run.name={name}",
        *overrides,
    ]


def on_slurm(ranks: int) -> list[str]:
    return [f"preprocess.ranks={ranks}", "cluster=dev", f"cluster.slurm_conf={os.environ['SLURM_CONF']}"]


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_until_done(record: Path, seconds: float = 120) -> dict:
    until = time.monotonic() + seconds
    while (found := json.loads(record.read_text()))["state"] != "done":
        assert found["state"] not in ("failed", "cancelled", "held") and time.monotonic() < until, found
        time.sleep(0.2)
    return found


def hashes(folder: Path) -> list[tuple[str, object]]:
    return [(path.name, info) for path, info in Manifest.load(folder).all_files()]


def nodes_of(job: str) -> tuple[int, int]:
    """How many nodes and tasks the step of a job had, by accounting, which may hear of the step late."""
    command, rows = ["sacct", "-nP", "-j", job, "-o", "NNodes,NTasks"], []

    def told() -> bool:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        rows[:] = [line.split("|") for line in asked.stdout.split()]
        return any(row[1:] == ["4"] for row in rows)

    assert processes.wait_until(told, 60, 0.2), rows
    nodes, tasks = next(row for row in rows if row[1:] == ["4"])
    return int(nodes), int(tasks)


@pytest.mark.parametrize("nodes", [1, 4])
def test_the_launcher_spreads_four_ranks_over_the_nodes_asked_for(devcluster, tmp_path, nodes):
    corpus = write_corpus(tmp_path / "corpus", works=25, words=2_400)
    run(launcher(corpus, "here"), tmp_path)
    there = launcher(corpus, "there", *on_slurm(4), f"cluster.nodes={nodes}")
    run(there, tmp_path)
    record = wait_until_done(tmp_path / "runs/there/run.json")
    assert hashes(tmp_path / "data/here") == hashes(tmp_path / "data/there")
    assert nodes_of(record["job_ids"][0]) == (nodes, 4)
    assert run(there, tmp_path) == "data/there is finished and up to date: nothing to do.\n"


def test_ranks_that_do_not_spread_evenly_are_refused(tmp_path):
    command = launcher(tmp_path, "there", "preprocess.ranks=4", "cluster=dev", "cluster.nodes=3")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert done.stderr.strip() == (
        "preprocess.ranks=4: must be a multiple of cluster.nodes=3, so that every node has as many."
    )


def test_a_requeued_build_goes_on(devcluster, tmp_path):
    """Its ranks are gone without a farewell, and the same job id starts on the same node again."""
    corpus = write_corpus(tmp_path / "corpus", works=100, words=2_400)
    run(launcher(corpus, "there", *on_slurm(2)), tmp_path)
    record, until = tmp_path / "runs/there/run.json", time.monotonic() + 60
    while not list((tmp_path / "data/there").glob(".build-*")):  # its MPI world stands
        assert time.monotonic() < until, record.read_text()
        time.sleep(0.01)
    (job,) = json.loads(record.read_text())["job_ids"]
    subprocess.run(["scancel", "--signal=KILL", f"{job}.0"], check=True)
    subprocess.run(["scontrol", "requeue", job], check=True)
    found = wait_until_done(record)
    assert found["life"] == [job, 1], found
    assert hashes(tmp_path / "data/there")
