"""Jobs on a real Slurm: signals, preemption, lost nodes, cancelled and stuck jobs. Ranks hold no torch."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elm_megatron.run.folder import RunFolder
from slurm.devcluster import processes
from slurm.devcluster.cluster import DevCluster
from slurm.jobs import attempts, queue_state
from slurm.tracker import __main__ as tracker
from slurm.tracker import commands
from tests import users
from tests.slurm.accounting import final_states, states

SECRETS = ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "ELM_SECRET")
HERE = Path(__file__).parent
pytestmark = pytest.mark.slurm


def submit(
    folder: Path, steps: int, *keys: str, ranks: int = 1, seconds: float = 0.1, trouble: str = "", **env: str
) -> str:
    """Queue a stepping job; returns what the command printed."""
    command = [sys.executable, str(HERE / "stepping.py"), str(folder), str(ranks), str(steps), str(seconds)]
    done = subprocess.run(
        [*command, trouble, *keys],
        env={**os.environ, "PYTHONPATH": str(HERE), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def job_of(folder: Path) -> str:
    return record(folder)["job_ids"][-1]


def losses(folder: Path) -> list[tuple[int, int]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines() if (folder / "metrics.jsonl").exists() else []
    return [(row["step"], row["loss"]) for row in map(json.loads, lines)]


def undisturbed(steps: int) -> list[tuple[int, int]]:
    """What `Stepping` logs when nothing happens to it."""
    value, rows = 1, []
    for step in range(steps):
        value = (value * 31 + step) % 1009
        rows.append((step + 1, value))
    return rows


def wait_for(what: str, condition: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s in vain for {what}"
        time.sleep(0.2)


def wait_step(folder: Path, step: int) -> None:
    wait_for(f"step {step}", lambda: len(losses(folder)) >= step)


def wait_state(folder: Path, state: str, seconds: float = 120) -> None:
    wait_for(f"{state} instead of {record(folder)}", lambda: record(folder)["state"] == state, seconds)


def restarts(folder: Path) -> list[int]:
    return [attempt["restart"] for attempt in record(folder).get("lives", [])]


def test_asked_by_usr2_and_by_requeue(devcluster: DevCluster, tmp_path: Path) -> None:
    """`scancel -s USR2` and `scontrol requeue`: the same job id goes on, each step once."""
    run = tmp_path / "run"
    assert "queued on dev" in submit(run, 60)
    job = job_of(run)
    wait_step(run, 12)
    assert "is live already: job " + job in submit(run, 60)
    devcluster.command("scancel", "-s", "USR2", job)
    wait_for("a second attempt", lambda: restarts(run) == [0, 1])
    wait_step(run, 30)
    devcluster.command("scontrol", "requeue", job)
    wait_state(run, "done")
    assert restarts(run) == [0, 1, 2] and record(run)["job_ids"] == [job]
    assert losses(run) == undisturbed(60)
    assert final_states(devcluster, job) == ["REQUEUED", "REQUEUED", "COMPLETED"]
    assert "is finished" in submit(run, 60)


def test_preempted_and_time_limit(devcluster: DevCluster, tmp_path: Path) -> None:
    run, other = tmp_path / "preempted", tmp_path / "limited"
    # Slurm may signal 30 s early, here 10 to 40 s after the start: never before the rank's handlers stand.
    submit(other, 2000, "time=1", "signal_seconds=20", "exclude=n[1-3]", "partition=high")
    submit(run, 60, "nodes=3", "exclude=n4", ranks=3)
    wait_step(run, 12)
    urgent = devcluster.command(
        *("sbatch", "-o", "/dev/null", "--parsable", "-p", "high", "-N3", "-x", "n4"),
        *("--exclusive", "--wrap", "sleep 1"),
    )
    wait_state(run, "requeued")
    assert "PREEMPTED" in record(run)["reason"]
    assert final_states(devcluster, urgent.stdout.strip()) == ["COMPLETED"]
    wait_state(run, "done")
    assert losses(run) == undisturbed(60)
    assert final_states(devcluster, job_of(run)) == ["PREEMPTED", "COMPLETED"]
    wait_for("more than one attempt", lambda: len(restarts(other)) > 1, 180)
    saved = RunFolder(other).read()["lives"][1]["step"]
    wait_step(other, saved + 10)
    found = losses(other)
    assert saved > 0 and found == undisturbed(len(found)), "it goes on where it was asked to save"
    assert states(devcluster, job_of(other)) == ["REQUEUED", "RUNNING"]


def test_preempted_with_a_grace_time(devcluster: DevCluster, tmp_path: Path) -> None:
    """Slurm would requeue the job at the end of the grace time, when the ranks are long gone."""
    run = tmp_path / "run"
    submit(run, 40, "partition=grace", "nodes=4", ranks=4)
    wait_step(run, 12)
    high = ("sbatch", "-o", "/dev/null", "-p", "high", "-N4", "--exclusive", "--wrap", "true")
    devcluster.command(*high)
    wait_state(run, "requeued")
    assert "preempted" in record(run)["reason"]
    wait_state(run, "done")
    assert losses(run) == undisturbed(40) and restarts(run) == [0, 1]
    assert final_states(devcluster, job_of(run)) == ["REQUEUED", "COMPLETED"]


def test_cancelled_for_good(devcluster: DevCluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    submit(run, 2000)
    wait_step(run, 15)
    devcluster.command("scancel", job_of(run))
    wait_state(run, "cancelled")
    assert final_states(devcluster, job_of(run)) == ["CANCELLED"] and restarts(run) == [0]
    assert "CANCELLED" in record(run)["reason"]
    assert (run / "checkpoints/latest").read_text() == f"step-{losses(run)[-1][0]:08d}"


@pytest.mark.skipif(bool(users.why_none()), reason=str(users.why_none()))
def test_a_colleague_saves_and_stops_a_run(devcluster: DevCluster) -> None:
    """Another user of the group, who may not signal the job, by `elm-queue save` and `elm-queue stop`."""
    assert commands.COMMANDS  # imported here: that user may not reach this interpreter's files

    def elm_queue(*words: str) -> None:
        os.environ |= {"LOGNAME": users.COLLEAGUE, "ELM_QUEUE_CACHE": "", "HOME": "/nonexistent"}
        sys.argv = ["elm-queue", *words]
        with pytest.raises(SystemExit) as ended:
            tracker.main()
        assert not ended.value.code
        assert RunFolder(words[1]).read_metrics(), "the curve can be read"

    with users.reachable_folder() as folder:
        run = folder / "runs/shared"
        submit(run, 2000, f"group={users.GROUP}")
        wait_step(run, 3)
        assert not (run / "checkpoints/latest").exists() or record(run).get("step", 0) % 10 == 0
        users.call_as(users.COLLEAGUE, lambda: elm_queue("save", str(run)))
        wait_for("a save", lambda: record(run).get("step", 0) % 10 > 0)
        assert record(run)["state"] == "running" and restarts(run) == [0]
        users.call_as(users.COLLEAGUE, lambda: elm_queue("stop", str(run)))
        wait_state(run, "cancelled")
        assert record(run)["reason"] == f"{users.COLLEAGUE} asked it to stop: elm-queue stop"
        assert final_states(devcluster, job_of(run)) == [
            "FAILED"
        ]  # what waits for its success does not start
        script = next((run / "logs").glob("*_submission.sh"))
        assert stat.S_IMODE(script.stat().st_mode) == 0o600 and (run / "logs").stat().st_mode & 0o050


def test_a_world_that_aborts_when_it_is_asked_to_save_starts_again(
    devcluster: DevCluster, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    submit(run, 5, "nodes=2", ranks=2, trouble="abort")
    wait_state(run, "running")
    time.sleep(1)
    devcluster.command("scancel", "-s", "USR2", job_of(run))
    wait_state(run, "done")
    assert final_states(devcluster, job_of(run)) == ["REQUEUED", "COMPLETED"] and restarts(run) == [0, 1]


def test_told_to_stop_by_hand_is_no_success(devcluster: DevCluster, tmp_path: Path) -> None:
    """SIGTERM to the ranks alone: saved, not requeued, and what waits for its success does not start."""
    run = tmp_path / "run"
    submit(run, 2000)
    wait_step(run, 5)
    job = job_of(run)
    wait = ("-d", f"afterok:{job}", "--kill-on-invalid-dep=yes", "--wrap", "true")
    then = devcluster.command("sbatch", "-o", "/dev/null", "--parsable", *wait).stdout.strip()
    devcluster.command("scancel", "-s", "TERM", job)
    wait_state(run, "cancelled")
    assert [final_states(devcluster, one) for one in (job, then)] == [["FAILED"], ["CANCELLED"]]
    assert (run / "checkpoints/latest").read_text() == f"step-{losses(run)[-1][0]:08d}"


def test_lost_nodes(devcluster: DevCluster, tmp_path: Path) -> None:
    """Two nodes die at once, slurmd and tasks, one with a batch script: Slurm starts the jobs elsewhere."""
    wide, narrow = tmp_path / "wide", tmp_path / "narrow"
    submit(wide, 200, "nodes=2", ranks=2)
    submit(narrow, 100, "cpus_per_task=16")  # a whole node, which is none of the first job's
    wait_step(wide, 5)
    wait_step(narrow, 15)

    def nodes_of(run: Path) -> list[str]:
        nodes = devcluster.command("squeue", "-h", "-j", job_of(run), "-o", "%N").stdout.strip()
        return devcluster.command("scontrol", "show", "hostnames", nodes).stdout.split()

    lost = [nodes_of(wide)[1], nodes_of(narrow)[0]]
    for node in lost:
        devcluster.kill_node(node)
    try:
        for run in (wide, narrow):
            wait_for("a second attempt", lambda run=run: len(restarts(run)) == 2, 180)
            wait_state(run, "done")
    finally:
        for node in lost:
            devcluster.start(f"slurmd-{node}")
    for run, steps in ((wide, 200), (narrow, 100)):
        assert losses(run) == undisturbed(steps)
        assert final_states(devcluster, job_of(run)) == ["NODE_FAIL", "COMPLETED"]


def test_a_drained_node_and_a_restarted_controller(devcluster: DevCluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    submit(run, 80)
    wait_step(run, 10)
    devcluster.command("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
    devcluster.stop("slurmctld")
    wait_step(run, 40)
    devcluster.start("slurmctld")
    wait_state(run, "done")
    assert losses(run) == undisturbed(80) and restarts(run) == [0]
    assert final_states(devcluster, job_of(run)) == ["COMPLETED"]


def test_a_requeue_waits_for_a_controller_that_is_being_restarted(
    devcluster: DevCluster, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    submit(run, 40)
    wait_step(run, 10)
    ranks = processes.with_environment({"SLURM_JOB_ID": job_of(run), "SLURM_STEP_ID": "0"})
    devcluster.stop("slurmctld")
    for rank in ranks:
        rank.signal(signal.SIGUSR2)
    wait_for("the save", lambda: "about to be requeued" in str(record(run)["reason"]))
    time.sleep(3)
    assert record(run)["state"] == "running"  # Slurm has not done it yet
    devcluster.start("slurmctld")
    wait_state(run, "done")
    assert losses(run) == undisturbed(40) and restarts(run) == [0, 1]
    assert final_states(devcluster, job_of(run)) == ["REQUEUED", "COMPLETED"]


def test_a_failure_tells_the_truth(devcluster: DevCluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    submit(run, 50, "nodes=2", ranks=2, trouble="raise on 1")
    job = job_of(run)
    then = devcluster.command(
        "sbatch",
        "-o",
        "/dev/null",
        "--parsable",
        "-d",
        f"afterok:{job}",
        "--kill-on-invalid-dep=yes",
        "--wrap",
        "true",
    ).stdout.strip()
    assert [final_states(devcluster, one) for one in (job, then)] == [["FAILED"], ["CANCELLED"]]
    first_screen = (run / f"logs/{job}_1_log.out").read_text().splitlines()[:24]
    assert any("rank 1 of 2" in line for line in first_screen)
    assert any("ZeroDivisionError: on purpose" in line for line in first_screen)
    assert record(run)["state"] == "failed" and "on purpose" in record(run)["reason"]


def test_held_when_nothing_moves(devcluster: DevCluster, tmp_path: Path) -> None:
    """It is refused while Slurm holds it, and live again as soon as a person has released it."""
    run = tmp_path / "run"
    submit(run, 50, trouble="no progress")
    wait_state(run, "held")
    job = job_of(run)
    assert restarts(run) == [0, 1, 2] and "started 2 times at step 0" in record(run)["reason"]
    wait_for("the hold", lambda: queue_state.is_held(RunFolder(run)))
    command = [sys.executable, str(HERE / "stepping.py"), str(run), "2", "50", "0.1", "no progress"]
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    again = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (2, "") and f"scontrol release {job}" in again.stderr
    devcluster.command("scontrol", "update", f"jobid={job}", "starttime=now+1hour")  # it goes on waiting
    devcluster.command("scontrol", "release", job)
    assert not queue_state.is_held(RunFolder(run)) and record(run)["state"] == "held"
    again = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, "") and f"is live already: job {job}" in again.stdout


def test_many_at_once_on_one_node(devcluster: DevCluster, tmp_path: Path) -> None:
    """Ten submissions at once, several on one node at a time: nobody meets another's ranks."""
    runs = [tmp_path / f"run{number}" for number in range(10)]
    command = [sys.executable, str(HERE / "stepping.py")]
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    started = [
        subprocess.Popen([*command, str(run), "2", "3", "0.1", "meet", "exclude=n[2-4]"], env=env)
        for run in runs
    ]
    assert [process.wait(120) for process in started] == [0] * 10
    for run in runs:
        wait_state(run, "done")
        assert losses(run) == undisturbed(3)


def test_one_run_is_submitted_once_however_often_at_once(devcluster: DevCluster, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "stepping.py"), str(tmp_path / "run"), "1", "5", "0.1", ""]
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    started = [subprocess.Popen(command, env=env) for _ in range(5)]
    assert [process.wait(120) for process in started] == [0] * 5
    wait_state(tmp_path / "run", "done")
    assert len(record(tmp_path / "run")["job_ids"]) == 1


def test_secrets_of_the_caller_reach_no_file_of_the_run(devcluster: DevCluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    submit(run, 5, SLURM_JOB_ID="1", PMI_RANK="1", **dict.fromkeys(SECRETS, "canary-7f3a"))
    wait_state(run, "done")
    assert final_states(devcluster, job_of(run)) == ["COMPLETED"]
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if b"canary-7f3a" in path.read_bytes()]


def test_points_of_a_sweep_take_turns(devcluster: DevCluster, tmp_path: Path) -> None:
    """cluster.at_once=1: three jobs in the queue, one after the other on free nodes."""
    script = (
        "import sys; from pathlib import Path; from stepping import Config, Stepping\n"
        "from conf.schema.cluster import ClusterConfig; from conf.schema.pretrain import RunConfig\n"
        "from slurm.chains.sweep import Sweep; import os\n"
        "sweep = Sweep()\n"
        "for name in 'abc':\n"
        "    folder = str(Path(sys.argv[1]) / name)\n"
        "    cluster = ClusterConfig(name='dev', executor='slurm', partition='low', time='5', at_once=1,\n"
        "                            env={'PYTHONPATH': os.environ['PYTHONPATH']}, signal_seconds=20)\n"
        "    sweep.submit(Stepping(folder, 5), Config(RunConfig(name, folder), cluster), 1, 'pretrain')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=60)
    runs = [tmp_path / name for name in "abc"]
    for run in runs:
        wait_state(run, "done")
    begin = [record(run)["lives"][0]["time"] for run in runs]
    end = [record(run)["lives"][0]["ended"] for run in runs]
    assert begin[1] > end[0] and begin[2] > end[1]


# What stands in for apptainer: notes its arguments, hides scontrol, runs the command.
APPTAINER = """#!{python}
import os, sys
args = sys.argv[1:]
open({log!r}, "a").write(" ".join(args) + "\\n")
assert args.pop(0) == "exec"
while args[0].startswith("--"):
    flag = args.pop(0)
    value = "" if flag == "--nv" else args.pop(0)
    if flag == "--env":
        name, _, text = value.partition("=")
        os.environ[name] = text + os.pathsep + {tests!r}
image, program = args[:2]
assert os.path.exists(image), image
os.environ["PATH"] = "/bin"  # an image holds no scontrol
os.execv({python!r}, [{python!r}, *args[2:]])
"""


def test_a_job_in_a_container_is_requeued_by_its_batch_script(
    devcluster: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, program, image = tmp_path / "log", tmp_path / "bin/apptainer", tmp_path / "elm.sif"
    program.parent.mkdir()
    image.touch()
    here = str(Path(__file__).parent)
    program.write_text(APPTAINER.format(python=sys.executable, log=str(log), tests=here))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    run = tmp_path / "run"
    submit(run, 30, f"container={image}")
    wait_step(run, 10)
    devcluster.command("scancel", "-s", "USR2", job_of(run))
    wait_state(run, "done")
    assert losses(run) == undisturbed(30) and restarts(run) == [0, 1]
    command = log.read_text().splitlines()[0]
    assert f"--bind {run}" in command and str(image) in command and "--nv" not in command


# What stands in for a command of Slurm: its answers in order, the last one for good.
ANSWERS = """#!/bin/sh
echo >> {calls}
case $(wc -l < {calls}) in
{cases}
esac
"""


def answers(program: Path, *lines: str) -> Path:
    """Make the command; returns the file that has a line for each call."""
    calls = program.with_suffix(".calls")
    calls.unlink(missing_ok=True)
    last = len(lines)
    cases = "\n".join(f"{'*' if n == last else n}) {line};;" for n, line in enumerate(lines, 1))
    program.write_text(ANSWERS.format(calls=calls, cases=cases))
    program.chmod(0o700)
    return calls


def test_why_a_job_stopped_is_asked_until_accounting_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins for Slurm's commands: the signal that ends the job hits them, and accounting lags behind."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    ended = "echo JobState=COMPLETING Restarts=1"
    answers(tmp_path / "scontrol", "exit 1", ended)
    late = ("kill -TERM $$", "echo RUNNING", "true", "echo PENDING", "echo PREEMPTED")
    answers(tmp_path / "sacct", *late)
    assert attempts.why_stopped("7", 0) == ("requeued", "Slurm says PREEMPTED")
    answers(tmp_path / "scontrol", ended)
    answers(tmp_path / "sacct", "echo RUNNING")  # for good: it is told as it is
    assert attempts.why_stopped("7", 1) == ("cancelled", "Slurm says RUNNING")
    answers(tmp_path / "scontrol", "echo JobState=RUNNING Restarts=0 PreemptTime=None")
    calls = answers(tmp_path / "sacct", "echo RUNNING")  # stopped by hand: there is nothing to wait for
    assert attempts.why_stopped("7", 0) == ("cancelled", "Slurm says RUNNING")
    assert len(calls.read_text().splitlines()) == 1
