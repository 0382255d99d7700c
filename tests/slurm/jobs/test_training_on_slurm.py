"""The launchers on a real Slurm, with the real engine: losses of four nodes, sweeps, disturbances, chains.

What each disturbance does by itself is shown without torch in test_attempts_on_slurm.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slurm.devcluster.cluster import DevCluster
from tests.slurm.accounting import final_states

ROOT = Path(__file__).parents[3]
SECRETS = ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "ELM_SECRET")
CANARY = "canary-7f3a"
pytestmark = pytest.mark.slurm


def launch(verb: str, folder: Path, *keys: str) -> str:
    """Run a launcher, with secrets in its environment."""
    command = [sys.executable, str(ROOT / f"launch/{verb}.py"), *keys]
    env = os.environ | dict.fromkeys(SECRETS, CANARY)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
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
    keys = ["train.steps=6", "train.save_every=3"]
    launch("pretrain", tmp_path, *keys, "run.name=here")
    here = metrics(tmp_path / "runs/here")

    layout = ["cluster.nodes=4", "parallel.tp=2", "parallel.pp=2"]
    launch("pretrain", tmp_path, *keys, *on_slurm(), *layout, "run.name=four")
    wait_done(tmp_path / "runs/four")
    four = metrics(tmp_path / "runs/four")
    assert [row["step"] for row in four] == list(range(1, 7))
    for a, b in zip(here, four, strict=True):
        assert abs(a["loss"] - b["loss"]) <= 1e-5 * a["loss"]
    assert leaks(tmp_path) == []

    sweep = [*keys, *on_slurm(), "-m", "cluster.nodes=1,2,4", "run.name=sweep"]
    first = launch("pretrain", tmp_path, *sweep)
    points = sorted((tmp_path / "runs").glob("sweep-*"))
    assert first.count("queued on dev") == len(points) == 3
    assert any(json.loads((point / "run.json").read_text())["state"] != "done" for point in points)
    assert launch("pretrain", tmp_path, *sweep).count("queued on dev") == 0
    for point in points:
        wait_done(point)
    report = launch("sweep", tmp_path, "report")
    assert report.count("| done |") == 3
    assert len(list((tmp_path / "runs/.sweeps").glob("*.png"))) == 1


def leaks(folder: Path) -> list[Path]:
    """Files that hold the caller's secrets: none of logs, configs, pickles, scripts, checkpoints may."""
    while True:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert len(files) > 20
        try:
            return [path for path in files if CANARY.encode() in path.read_bytes()]
        except FileNotFoundError:  # a rank has just renamed its result
            time.sleep(0.2)


def curve(folder: Path) -> list[tuple[float, float, float]]:
    return [(row["step"], row["loss"], row["grad_norm"]) for row in metrics(folder)]


def lives(folder: Path) -> int:
    return len(json.loads((folder / "run.json").read_text()).get("lives", []))


def wait_life(folder: Path, life: int, steps: int) -> None:
    """Wait until the run is in a life and has made some steps in it."""
    until = time.monotonic() + 300
    while lives(folder) < life or len(metrics(folder)) < steps_at_start(folder) + steps:
        assert time.monotonic() < until, (folder / "run.json").read_text()
        time.sleep(0.2)


def steps_at_start(folder: Path) -> int:
    return json.loads((folder / "run.json").read_text())["lives"][-1]["step"]


@pytest.mark.slow
def test_a_run_in_every_weather_is_bit_identical(devcluster: DevCluster, tmp_path: Path) -> None:
    """Time limit, USR2, requeue, preemption, a lost and a drained node, a restarted controller: one run."""
    launch("preprocess", tmp_path)
    long = ["train.steps=200", "train.global_batch_size=32", "train.save_every=20", "parallel.tp=2"]
    launch("pretrain", tmp_path, *long, "run.name=calm")
    short = ["cluster.time=2", "cluster.signal_seconds=60"]
    launch("pretrain", tmp_path, *long, *on_slurm(), *short, "cluster.nodes=2", "run.name=stormy")
    stormy = tmp_path / "runs/stormy"
    job = json.loads((stormy / "run.json").read_text())["job_ids"][0]
    (stormy / "metrics.jsonl").touch()

    wait_life(stormy, 2, 0)  # the first one came to its time limit
    devcluster.command("scontrol", "update", f"jobid={job}", "timelimit=20")
    wait_life(stormy, 2, 8)
    devcluster.command("scancel", "-s", "USR2", job)
    wait_life(stormy, 3, 8)
    devcluster.command("scontrol", "requeue", job)
    wait_life(stormy, 4, 8)
    devcluster.command("sbatch", "-o", "/dev/null", "-p", "high", "-N4", "--exclusive", "--wrap", "sleep 1")
    wait_life(stormy, 5, 25)
    nodes = devcluster.command("squeue", "-h", "-j", job, "-o", "%N").stdout.strip()
    lost = devcluster.command("scontrol", "show", "hostnames", nodes).stdout.split()[1]
    devcluster.kill_node(lost)
    try:
        wait_life(stormy, 6, 8)
        devcluster.command("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
        devcluster.stop("slurmctld")
        wait_life(stormy, 6, 20)
        devcluster.start("slurmctld")
        wait_done(stormy)
    finally:
        devcluster.start(f"slurmd-{lost}")
    assert curve(stormy) == curve(tmp_path / "runs/calm") and len(curve(stormy)) == 200
    assert lives(stormy) == 6 and json.loads((stormy / "run.json").read_text())["job_ids"] == [job]
    assert final_states(devcluster, job) == ["REQUEUED"] * 3 + ["PREEMPTED", "NODE_FAIL", "COMPLETED"]


@pytest.mark.slow
def test_one_srun_in_an_allocation(devcluster: DevCluster, tmp_path: Path) -> None:
    """`salloc`, then the same command with cluster=allocation: done when the command returns."""
    launch("preprocess", tmp_path)
    keys = ["train.steps=6", "parallel.tp=2"]
    launch("pretrain", tmp_path, *keys, "run.name=here")
    verb = [sys.executable, str(ROOT / "launch/pretrain.py"), *keys, "run.name=inside"]
    inside = ["cluster=allocation", "cluster.device=cpu", "cluster.nodes=2"]
    done = devcluster.command("salloc", "-p", "low", "-N2", *verb, *inside, cwd=tmp_path)
    record = json.loads((tmp_path / "runs/inside/run.json").read_text())
    assert record["state"] == "done", done.stdout + done.stderr
    assert curve(tmp_path / "runs/inside") == curve(tmp_path / "runs/here")
    outside = subprocess.run([*verb, *inside], cwd=tmp_path, capture_output=True, text=True)
    assert outside.returncode == 0 and "finished" in outside.stdout
    verb[-1] = "run.name=other"
    outside = subprocess.run([*verb, *inside], cwd=tmp_path, capture_output=True, text=True)
    assert outside.returncode == 2 and "in no allocation" in outside.stderr
    small = devcluster.command("salloc", "-p", "low", "-N1", *verb, *inside, cwd=tmp_path, check=False)
    assert small.returncode == 2 and "this allocation has 1 nodes" in small.stderr
    assert not (tmp_path / "runs/other").exists()


@pytest.mark.slow
def test_chain(devcluster: DevCluster, tmp_path: Path) -> None:
    """Five jobs, each after the one before; the same command again finds all of them there."""
    keys = ["experiment=quickstart", "train.steps=8", "tune.steps=2", *on_slurm()]
    table = launch("pipeline", tmp_path, *keys)
    assert table.count("afterok:") == 4
    wait_done(tmp_path / "runs/quickstart-tiny-sample-eval", 580)
    assert launch("pipeline", tmp_path, *keys).count("there already, and valid") == 5
