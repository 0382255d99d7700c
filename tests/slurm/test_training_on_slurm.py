"""The launchers on a real Slurm, with the real engine: losses of four nodes, sweeps, chains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slurm.devcluster.cluster import DevCluster

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def launch(verb: str, folder: Path, *keys: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / f"launch/{verb}.py"), *keys], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def on_slurm() -> list[str]:
    return ["cluster=dev", f"cluster.slurm_conf={os.environ['SLURM_CONF']}"]


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def wait_done(folder: Path, seconds: float = 400) -> None:
    until = time.monotonic() + seconds
    while json.loads((folder / "run.json").read_text())["state"] != "done":
        assert time.monotonic() < until, (folder / "run.json").read_text()
        time.sleep(0.5)


def test_four_nodes_and_a_sweep(devcluster: DevCluster, tmp_path: Path) -> None:
    """tp=2·pp=2 on four nodes gives the losses of one process here; a sweep returns at once and once."""
    launch("preprocess", tmp_path)
    keys = ["train.steps=12", "train.save_every=6"]
    launch("pretrain", tmp_path, *keys, "run.name=here")
    here = metrics(tmp_path / "runs/here")

    launch(
        "pretrain",
        tmp_path,
        *keys,
        *on_slurm(),
        "cluster.nodes=4",
        "parallel.tp=2",
        "parallel.pp=2",
        "run.name=four",
    )
    wait_done(tmp_path / "runs/four")
    four = metrics(tmp_path / "runs/four")
    assert [row["step"] for row in four] == list(range(1, 13))
    for a, b in zip(here, four, strict=True):
        assert abs(a["loss"] - b["loss"]) <= 1e-5 * a["loss"]

    begin = time.monotonic()
    sweep = [*keys, *on_slurm(), "-m", "cluster.nodes=1,2,4", "run.name=sweep"]
    first = launch("pretrain", tmp_path, *sweep)
    assert first.count("queued on dev") == 3 and time.monotonic() - begin < 30
    assert launch("pretrain", tmp_path, *sweep).count("queued on dev") == 0
    for folder in (tmp_path / "runs").glob("sweep-*"):
        wait_done(folder)
    report = launch("sweep", tmp_path, "report")
    assert report.count("| done |") == 3
    assert len(list((tmp_path / "runs/.sweeps").glob("*.png"))) == 1


def test_a_preempted_run_is_bit_identical(devcluster: DevCluster, tmp_path: Path) -> None:
    launch("preprocess", tmp_path)
    long = ["train.steps=60", "train.save_every=20"]
    launch("pretrain", tmp_path, *long, "run.name=calm")
    launch("pretrain", tmp_path, *long, *on_slurm(), "run.name=stormy")
    stormy, until = tmp_path / "runs/stormy", time.monotonic() + 200
    while not (stormy / "metrics.jsonl").exists() or len(metrics(stormy)) < 8:
        assert time.monotonic() < until
        time.sleep(0.2)
    devcluster.command(
        "sbatch", "-o", "/dev/null", "-p", "high", "-N4", "--exclusive", "--wrap", "sleep 1", cwd=tmp_path
    )
    wait_done(stormy)
    assert [(r["step"], r["loss"], r["grad_norm"]) for r in metrics(stormy)] == [
        (r["step"], r["loss"], r["grad_norm"]) for r in metrics(tmp_path / "runs/calm")
    ]
    assert len(json.loads((stormy / "run.json").read_text())["lives"]) == 2


def test_chain(devcluster: DevCluster, tmp_path: Path) -> None:
    """Five jobs, each after the one before; the same command again finds all of them there."""
    keys = ["experiment=quickstart", "train.steps=8", "tune.steps=2", *on_slurm()]
    table = launch("pipeline", tmp_path, *keys)
    assert table.count("afterok:") == 4
    wait_done(tmp_path / "runs/quickstart-tiny-sample-eval", 580)
    assert launch("pipeline", tmp_path, *keys).count("there already, and valid") == 5
