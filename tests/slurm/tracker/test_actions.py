"""One run or job by its name: status, log, save, stop, cancel, retry, priority, nodes, on a real Slurm."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from elm_megatron.run.folder import RunFolder, append_jsonl
from slurm.devcluster import processes
from slurm.devcluster.cluster import DevCluster
from tests.slurm.accounting import states

ELM_QUEUE = [sys.executable, "-m", "slurm.tracker"]
# A rank that hears signals as the suite's ranks do; its output goes where submitit puts that of rank 0.
RANK = """#!/bin/bash
#SBATCH --output={logs}/%j_0_log.out --job-name=tiny --comment=elm:{run} --open-mode=append --requeue
srun bash -c 'trap "echo saves and is requeued; exit 0" USR2; trap "echo saves and ends; exit 0" TERM
echo attempt $SLURM_RESTART_COUNT; while true; do sleep 0.2; done'
"""


@pytest.fixture
def elm_queue(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run elm-queue in the folder that has runs/."""

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*ELM_QUEUE, *argv], capture_output=True, text=True, timeout=120, cwd=tmp_path)

    return run


@pytest.fixture
def tiny(devcluster: DevCluster, tmp_path: Path) -> tuple[RunFolder, str]:
    """A run that trains in the queue, and its job id."""
    run = RunFolder(tmp_path / "runs" / "tiny")
    run.create()
    script = tmp_path / "job.sh"
    script.write_text(RANK.format(logs=run.logs, run=run.path))
    job = devcluster.command("sbatch", "--parsable", str(script)).stdout.strip()
    run.update(state="running", steps=100, job_ids=[job])
    append_jsonl(run.metrics, {"step": 40, "loss": 3.0, "tokens_per_second": 900.0, "step_seconds": 2.0})
    assert processes.wait_until(lambda: "attempt" in _log(run, job), 60, 0.2)
    return run, job


def _log(run: RunFolder, job: str) -> str:
    file = run.logs / f"{job}_0_log.out"
    return file.read_text() if file.exists() else ""


def test_a_run_is_found_by_name_folder_and_id(tiny, elm_queue) -> None:
    run, job = tiny
    for text in ("tiny", "runs/tiny", str(run.path), job):
        found = json.loads(elm_queue("status", text, "--json").stdout)
        assert (found["run"], found["job"], found["queue"]) == (str(run.path), job, "running")
        assert (found["step"], found["steps"], found["state"]) == (40, 100, "running")
    told = elm_queue("status", "tiny").stdout
    assert "step 40 of 100, loss 3.000, 900 tokens/s" in told
    assert f"log: {run.logs}/{job}_0_log.out" in told
    refused = elm_queue("status", "unknown")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "run: found 'unknown'; allowed are a job id" in refused.stderr


def test_a_log_is_followed_until_the_run_was_stopped(tiny, elm_queue, tmp_path: Path) -> None:
    _, job = tiny
    following = subprocess.Popen([*ELM_QUEUE, "log", "tiny"], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    time.sleep(2)
    assert elm_queue("stop", "tiny").stdout.startswith(f"{job}: asked to save at its next step and to end")
    assert "\nsaves and ends\n" in following.communicate(timeout=120)[0]
    assert following.returncode == 0
    again = elm_queue("log", "tiny", "-n", "3")
    assert "saves and ends\n" in again.stdout, "of a job that left the queue"
    assert again.stdout.count("\n") == 3
    ended = elm_queue("stop", "tiny")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "neither waits nor runs in Slurm's queue; run.json says running" in ended.stderr


def test_save_reaches_the_ranks(tiny, elm_queue) -> None:
    run, job = tiny
    assert "asked to save" in elm_queue("save", job).stdout
    assert processes.wait_until(lambda: "saves and is requeued" in _log(run, job), 30, 0.2)


def test_save_and_stop_are_for_runs_alone(devcluster: DevCluster, submit, elm_queue) -> None:
    job = submit("--nodes=1")
    assert processes.wait_until(lambda: states(devcluster, job) == ["RUNNING"], 30, 0.3)
    refused = elm_queue("save", job)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"save: {job} is no run of this suite" in refused.stderr
    assert elm_queue("cancel", job).stdout == f"{job}: cancelled\n"
    assert processes.wait_until(lambda: states(devcluster, job) == ["CANCELLED"], 30, 0.3)


def test_a_waiting_array_is_cancelled_without_its_running_tasks(
    devcluster: DevCluster, submit, elm_queue
) -> None:
    array = submit("--array=1-5%1")
    assert processes.wait_until(lambda: "RUNNING" in states(devcluster, array), 30, 0.3)
    assert "cancelled" in elm_queue("cancel", array).stdout
    listed = json.loads(elm_queue("list", "--json").stdout)["jobs"]
    assert [row["state"] for row in listed] == ["RUNNING"]


@pytest.mark.slow
def test_retry_leaves_out_the_node_that_was_lost(devcluster: DevCluster, submit, elm_queue) -> None:
    job = submit("--nodelist=n3", script="sleep $((SLURM_RESTART_COUNT ? 0 : 300))")
    assert processes.wait_until(lambda: states(devcluster, job) == ["RUNNING"], 30, 0.3)
    devcluster.kill_node("n3")
    try:
        assert processes.wait_until(lambda: states(devcluster, job) == ["NODE_FAIL", "PENDING"], 120, 0.5)
        devcluster.command("scontrol", "update", f"jobid={job}", "reqnodelist=")
        assert elm_queue("retry", job).stdout == f"{job}: waits again, without n3\n"
        assert "its node was lost" in elm_queue("eff", job).stdout
        assert processes.wait_until(lambda: states(devcluster, job)[-1] == "COMPLETED", 150, 0.5)
    finally:
        devcluster.start("slurmd-n3")
        devcluster.command("scontrol", "update", "nodename=n3", "state=resume", check=False)


def test_retry_without_a_named_node(devcluster: DevCluster, submit, elm_queue) -> None:
    job = submit("--hold")
    refused = elm_queue("retry", job)
    assert refused.returncode == 2
    assert f"retry: no attempt of {job} lost a node" in refused.stderr
    assert "--without: found '$(x)'" in elm_queue("retry", job, "--without", "$(x)").stderr
    assert (
        elm_queue("retry", job, "--without", "n1,n[3-4]").stdout == f"{job}: waits again, without n1,n[3-4]\n"
    )
    assert processes.wait_until(lambda: states(devcluster, job) == ["RUNNING"], 30, 0.3)
    assert devcluster.command("squeue", "-h", "-j", job, "-o", "%N").stdout.strip() == "n2"


def test_a_priority_is_shown_by_part(devcluster: DevCluster, submit, elm_queue) -> None:
    submit("--nodes=4", "--exclusive")
    job = submit("--nodes=4", "--exclusive")
    assert processes.wait_until(
        lambda: "6" in devcluster.command("sprio", "-h", "-j", job, "-o", "6%i").stdout, 30, 0.3
    )
    found = json.loads(elm_queue("priority", job, "--json").stdout)
    assert found["id"] == job
    assert set(found["parts"]) >= {"age", "fair share", "QOS", "partition", "TRES"}
    assert found["priority"] > 0
    assert f"{job}: priority" in elm_queue("priority", job).stdout


def test_nodes_show_reasons_reservations_and_maintenance(devcluster: DevCluster, elm_queue) -> None:
    devcluster.command("scontrol", "update", "nodename=n4", "state=drain", "reason=disk is being swapped")
    devcluster.command(
        *("scontrol", "create", "reservation", "reservationname=elmupdate", "starttime=now+2hours"),
        *("duration=60", "nodes=n1,n2", "users=root", "flags=maint"),
    )
    try:
        text = elm_queue("nodes").stdout
        assert "disk is being swapped" in text
        assert "maintenance elmupdate: n[1-2], from" in text
        found = json.loads(elm_queue("nodes", "--closed", "--json").stdout)
        assert [node["node"] for node in found["nodes"]] == ["n4"]
        assert found["reservations"][0]["maintenance"] is True
    finally:
        devcluster.command("scontrol", "delete", "reservationname=elmupdate")
        devcluster.command("scontrol", "update", "nodename=n4", "state=resume")


def test_a_job_that_would_run_into_a_maintenance(devcluster: DevCluster, submit, elm_queue) -> None:
    devcluster.command(
        *("scontrol", "create", "reservation", "reservationname=elmupdate", "starttime=now+30minutes"),
        *("duration=60", "nodes=ALL", "users=root", "flags=maint"),
    )
    try:
        job = submit("--time=2:00:00")
        assert processes.wait_until(
            lambda: "aintenance" in devcluster.command("squeue", "-h", "-j", job, "-o", "%r").stdout, 30, 0.3
        )
        text = elm_queue("why", job).stdout
        assert "It would not end before the maintenance elmupdate of its nodes begins at" in text
        assert "do: A time limit below 29:" in text
    finally:
        devcluster.command("scancel", job)
        devcluster.command("scontrol", "delete", "reservationname=elmupdate")


def test_held_and_suspended_jobs_have_their_sentence(devcluster: DevCluster, submit, elm_queue) -> None:
    special, held, suspended = submit(), submit(), submit()
    jobs = (special, held, suspended)
    assert processes.wait_until(lambda: all(states(devcluster, job) == ["RUNNING"] for job in jobs), 40, 0.3)
    devcluster.command("scontrol", "requeuehold", "state=SpecialExit", special)
    devcluster.command("scontrol", "requeuehold", held)
    devcluster.command("scontrol", "suspend", suspended)
    assert processes.wait_until(
        lambda: "SPECIAL_EXIT" in devcluster.command("squeue", "-h", "-o", "%T").stdout, 30
    )
    time.sleep(1)
    assert "declared special, and Slurm holds it" in elm_queue("why", special).stdout
    assert "is held, by scontrol requeuehold or by its own batch script" in elm_queue("why", held).stdout
    told = elm_queue("why", suspended).stdout
    assert "it is suspended on n" in told
    assert "no other job runs on its nodes" in told
    devcluster.command("scontrol", "resume", suspended)


def test_the_reason_of_a_held_run_is_run_jsons(devcluster: DevCluster, tiny, elm_queue) -> None:
    run, job = tiny
    devcluster.command("scontrol", "requeuehold", job)
    run.update(state="held", reason="job started 3 times at step 40 and made no new checkpoint")
    assert processes.wait_until(lambda: "PENDING" in states(devcluster, job), 60, 0.3)
    text = elm_queue("why", job).stdout
    assert "run.json says held: job started 3 times at step 40" in text
    assert f"its log: {run.logs}/{job}_0_log.out" in text


def test_efficiency_of_a_run_of_a_file_and_of_states(
    devcluster: DevCluster, submit, elm_queue, tmp_path
) -> None:
    good, bad = submit(script="true"), submit(script="exit 3")
    for job, state in ((good, "COMPLETED"), (bad, "FAILED")):
        assert processes.wait_until(lambda job=job, state=state: states(devcluster, job) == [state], 40, 0.3)
    listed = tmp_path / "jobs.txt"
    listed.write_text(f"logs/slurm-{good}.out\n{bad} again\n")
    rows = json.loads(elm_queue("eff", "--file", str(listed), "--json").stdout)
    assert {row["job_id"]: row["state"] for row in rows} == {good: "COMPLETED", bad: "FAILED"}

    def failed() -> set[str]:
        listed = elm_queue("eff", "--user", "all", "--since", "1h", "--state", "failed", "--json").stdout
        return {row["job_id"] for row in json.loads(listed)}

    # Slurm may hear of a short job's end before its start; no period of time contains the job until then.
    assert processes.wait_until(lambda: bad in failed(), 40, 0.5)
    assert good not in failed()
    assert elm_queue("eff", good, "--csv").stdout.splitlines()[1].startswith(f"{good},{good},elmdev,")
    assert "--file: " in elm_queue("eff", "--file", str(tmp_path / "none")).stderr
    assert "--state: found 'lost'" in elm_queue("eff", "--state", "lost").stderr


def test_efficiency_of_a_running_job_comes_from_its_steps(devcluster: DevCluster, submit, elm_queue) -> None:
    job = submit(script="srun sleep 300")
    assert processes.wait_until(
        lambda: "0: 1 task(s), the largest has" in elm_queue("eff", job).stdout, 40, 1
    )
