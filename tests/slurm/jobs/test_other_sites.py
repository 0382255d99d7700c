"""Jobs at sites that differ: two clusters, no requeue, PreemptMode=CANCEL, launch failures, lost answers.

A real Slurm throughout; ranks hold no torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from elm_megatron.run.folder import RunFolder
from slurm.devcluster.cluster import DevCluster
from slurm.jobs import queue_state
from tests.slurm.accounting import final_states
from tests.slurm.jobs.test_attempts_on_slurm import (
    HERE,
    job_of,
    losses,
    record,
    restarts,
    submit,
    undisturbed,
    wait_for,
    wait_state,
    wait_step,
)

pytestmark = pytest.mark.slurm
HIDING = {f"SQUEUE_{name}": "nothing" for name in ("PARTITION", "USERS", "ACCOUNT", "QOS", "NAMES", "SORT")}
HIDING |= {
    "SQUEUE_STATES": "CD",
    "SQUEUE_FORMAT": "%i",
    "SLURM_TIME_FORMAT": "%s",
    "SBATCH_PARTITION": "high",
}
URGENT = ("sbatch", "-o", "/dev/null", "-p", "urgent", "-N3", "--exclusive", "--wrap", "sleep 1")


def attempt(folder: Path, steps: int, *keys: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Submit without asserting that it works."""
    command = [sys.executable, str(HERE / "stepping.py"), str(folder), "1", str(steps), "0.1", "", *keys]
    environment = {**os.environ, "PYTHONPATH": str(HERE), **env}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_what_a_person_set_for_squeue_hides_no_job(devcluster: DevCluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    submit(run, 500)
    assert "is live already" in submit(run, 500, **HIDING)
    assert len(record(run)["job_ids"]) == 1


def test_a_job_id_that_came_again_is_a_strangers(devcluster: DevCluster, tmp_path: Path) -> None:
    words = ("sbatch", "--parsable", "-o", "/dev/null", "-J", "other", "--wrap", "sleep 60")
    stranger = devcluster.command(*words).stdout.strip()
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.update(state="running", executor="slurm", job_ids=[stranger], name="run", submitted=1e9)
    assert queue_state.live_job(folder) is None
    assert "queued on dev" in submit(folder.path, 3)


def test_a_run_is_live_whichever_cluster_is_asked_from(
    devcluster: DevCluster, other_site: DevCluster, tmp_path: Path
) -> None:
    """Submitted on one login node, asked for again on one of another cluster, and sent there by name."""
    first, second = (str(site.layout.slurm_conf) for site in (devcluster, other_site))
    run = tmp_path / "here"
    submit(run, 800, "slurm_conf=null", SLURM_CONF=first)
    assert record(run)["slurm_cluster"] == "elmdev"
    again = attempt(run, 800, "slurm_conf=null", "partition=plain", SLURM_CONF=second)
    assert again.returncode == 0 and "is live already" in again.stdout, again
    run = tmp_path / "there"
    submit(run, 60, "slurm_conf=null", "partition=plain", SLURM_CONF=first, SLURM_CLUSTERS="elmtwo")
    assert record(run)["slurm_cluster"] == "elmtwo"
    again = attempt(run, 60, "slurm_conf=null", SLURM_CONF=first)
    assert again.returncode == 0 and "is live already" in again.stdout, again
    wait_state(run, "done")


def test_a_job_that_may_not_be_requeued_has_a_successor(other_site: DevCluster, tmp_path: Path) -> None:
    """What waits for it waits for the successor, and run.json says so only when it is true."""
    run = tmp_path / "run"
    submit(run, 50, "partition=plain")
    job = job_of(run)
    other_site.command("scontrol", "update", f"jobid={job}", "requeue=0")
    wait = ("-d", f"afterok:{job}", "--kill-on-invalid-dep=yes", "--wrap", "true")
    then = other_site.command("sbatch", "-o", "/dev/null", "--parsable", *wait).stdout.strip()
    wait_step(run, 12)
    other_site.command("scancel", "-s", "USR2", job)
    wait_for("a successor", lambda: len(record(run)["job_ids"]) == 2)
    assert "goes on" in record(run)["reason"] or record(run)["state"] == "running"
    assert "is live already" in submit(run, 50, "partition=plain")
    wait_state(run, "done")
    assert losses(run) == undisturbed(50) and restarts(run) == [0, 0]
    assert final_states(other_site, then) == ["COMPLETED"]
    ended = (run / "checkpoints/latest").stat().st_mtime
    started = other_site.command("sacct", "-XnP", "-j", then, "-o", "start", check=False)
    assert started.stdout and ended


@pytest.mark.parametrize("partition", ["cancel", "grace"])
def test_a_job_that_is_preempted_for_good_has_a_successor(
    other_site: DevCluster, tmp_path: Path, partition: str
) -> None:
    run = tmp_path / "run"
    submit(run, 40, f"partition={partition}", "nodes=3", ranks=3)
    wait_step(run, 12)
    other_site.command(*URGENT)
    wait_state(run, "done")
    assert losses(run) == undisturbed(40) and len(restarts(run)) == 2
    assert (len(record(run)["job_ids"]) == 2) == (partition == "cancel")


def test_a_suspended_job_goes_on_unharmed(other_site: DevCluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    submit(run, 60, "partition=suspend", "nodes=3", ranks=3)
    wait_step(run, 12)
    other_site.command(*URGENT)
    wait_state(run, "done")
    assert losses(run) == undisturbed(60) and restarts(run) == [0]


@pytest.mark.slow  # ranks that never start, below, take the same way without a lost node
def test_a_node_that_dies_just_before_the_start(devcluster: DevCluster, tmp_path: Path) -> None:
    """The job is requeued without that node; what waits for it still waits."""
    run = tmp_path / "run"
    pid = devcluster.layout.pids / "slurmd-n2.pid"
    dies = f"[ -n \"$SLURM_RESTART_COUNT\" ] || kill -9 $(cut -d' ' -f1 {pid})"
    submit(run, 20, f"setup={dies}", "nodes=2", "exclude=n4", ranks=2)
    job = job_of(run)
    try:
        wait_state(run, "done", 180)
    finally:
        devcluster.start("slurmd-n2")
    assert final_states(devcluster, job)[-1] == "COMPLETED" and losses(run) == undisturbed(20)
    shown = devcluster.command("scontrol", "show", "job", job).stdout
    assert "n2" in shown.partition("ExcNodeList=")[2].split()[0]
    assert "NodeList=n[1,3]" in shown


def test_ranks_that_never_start_are_tried_three_times(devcluster: DevCluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    submit(run, 20, "nodes=1", "setup=srun() { return 1; }")
    wait_state(run, "failed", 180)
    assert "could not be started three times" in record(run)["reason"]
    assert final_states(devcluster, job_of(run)) == ["REQUEUED", "REQUEUED", "FAILED"]


# Hands the job in, and then says what sbatch says when the controller answers too late.
LATE = """#!/bin/sh
{sbatch} "$@" > /dev/null
echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
exit 1
"""


def test_a_job_whose_acceptance_was_not_heard_of_is_found(
    devcluster: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sbatch").write_text(LATE.format(sbatch=real))
    (tmp_path / "bin/sbatch").chmod(0o755)
    run = tmp_path / "run"
    path = f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"
    assert "queued on dev" in submit(run, 20, PATH=path)
    wait_state(run, "done")
    assert losses(run) == undisturbed(20) and len(record(run)["job_ids"]) == 1


def test_a_job_that_can_never_start_is_replaced(other_site: DevCluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    keys = ["partition=short", "time=30"]
    submit(run, 5, *keys)
    job = job_of(run)
    wait_for("the reason", lambda: queue_state.live_jobs(RunFolder(run))[0].never_starts)
    again = attempt(run, 5, *keys)
    assert again.returncode == 2 and f"job {job} can never start" in again.stderr
    again = attempt(run, 5, "partition=short", "time=4")
    assert again.returncode == 0 and f"job {job} is cancelled" in again.stderr, again
    wait_state(run, "done")
    assert record(run)["job_ids"][0] == job and len(record(run)["job_ids"]) == 2


def test_without_a_time_the_limit_of_the_partition_holds(other_site: DevCluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    submit(run, 5, "partition=plain", "time=null")
    shown = other_site.command("scontrol", "show", "job", job_of(run)).stdout
    assert "TimeLimit=1-00:00:00" in shown
    refused = attempt(tmp_path / "other", 5, "partition=short", "time=null", "signal_seconds=300")
    assert (
        refused.returncode == 2
        and "5:00" in refused.stderr
        and "cluster.signal_seconds=300" in refused.stderr
    )
    assert not (tmp_path / "other").exists()
