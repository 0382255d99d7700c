"""The attempts of a job, without a Slurm: who owns the run, and the count of attempts without progress."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from elm_megatron.run.folder import Rows, RunFolder, Superseded
from elm_megatron.run.world import World
from slurm.jobs import attempts, task

OLD_TASK = """
import sys, time
from pathlib import Path
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import World
from slurm.jobs import attempts
folder = Path(sys.argv[1])
attempts.FENCE_SECONDS = 0.1
world = World(int(sys.argv[2]), 2, 0, 0, 1, "7", 0, "localhost", folder)
attempts.begin(RunFolder(folder), world, 2)
print("began", flush=True)
while True:
    time.sleep(0.05)
    (folder / f"written-{world.rank}").write_text("x")
"""


def world(folder: Path, restart: int, rank: int = 0) -> World:
    (folder / f"{restart}").mkdir(exist_ok=True)
    return World(rank, 2, 0, 0, 1, "7", restart, "localhost", folder / f"{restart}")


def test_a_task_of_an_earlier_attempt_ends_itself(tmp_path: Path) -> None:
    """As on a node that the controller gave up: rank 0 and another rank go on, and must not."""
    run = RunFolder(tmp_path)
    run.update(state="submitted")
    old = [
        subprocess.Popen([sys.executable, "-c", OLD_TASK, str(tmp_path), str(rank)], stdout=subprocess.PIPE)
        for rank in (0, 1)
    ]
    for process in old:
        assert process.stdout and process.stdout.readline() == b"began\n"
    run.update(life=["7", 1])
    assert [process.wait(10) for process in old] == [-signal.SIGKILL] * 2
    for rank in (0, 1):
        (tmp_path / f"written-{rank}").unlink(missing_ok=True)
    assert json.loads((tmp_path / "run.json").read_text())["life"] == ["7", 1]


def test_a_job_is_held_after_attempts_without_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_fence", lambda run, mine: None)
    run = RunFolder(tmp_path)
    for restart in (0, 1):
        attempts.begin(run, world(tmp_path, restart), 2)
    with pytest.raises(SystemExit):
        attempts.begin(run, world(tmp_path, 2), 2)
    record = run.read()
    assert record["state"] == "held" and "started 2 times at step 0" in record["reason"]
    assert "lost without a word" in record["reason"]
    assert (tmp_path / "2" / task.HOLD).exists() and record["life"] == ["7", 1]
    attempts.begin(run, world(tmp_path, 3), 2)  # a person released it
    assert run.read()["state"] == "running"


def test_a_start_that_outlasts_the_limit_is_named_as_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_fence", lambda run, mine: None)
    run = RunFolder(tmp_path)
    for restart in (0, 1):
        attempts.begin(run, world(tmp_path, restart), 2)
        attempts.end(run, world(tmp_path, restart), "requeue")
    with pytest.raises(SystemExit):
        attempts.begin(run, world(tmp_path, 2), 2)
    assert "signal came 0 s after the start, before the first step" in run.read()["reason"]
    assert "scancel 7 and the command again: scontrol release 7 goes on unchanged" in run.read()["reason"]


def test_a_job_without_checkpoints_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_fence", lambda run, mine: None)
    run = RunFolder(tmp_path)
    for restart, bytes_written in enumerate((100, 200, 300, 300)):
        attempts.begin(run, world(tmp_path, restart), 2, bytes_written)
    with pytest.raises(SystemExit):
        attempts.begin(run, world(tmp_path, 4), 2, 300)


def test_what_an_earlier_attempt_still_writes_goes_nowhere(tmp_path: Path) -> None:
    """A task that stood still while another attempt began, and wakes up before it looks at the token."""
    run = RunFolder(tmp_path)
    run.update(life=["7", 0], step=3)
    old, rows = RunFolder(tmp_path, ["7", 0]), Rows(run.metrics)
    rows.append({"step": 3})
    rows.append({"step": 4})
    run.update(life=["7", 1])
    run.cut_after(3)
    rows.append({"step": 5})
    with pytest.raises(Superseded, match=r"belongs to job 7 \(restart 1\)"):
        old.update(step=5, state="done")
    assert run.read_metrics() == [{"step": 3}] and run.read()["step"] == 3
    RunFolder(tmp_path, ["7", 1]).update(step=4)


def test_progress_starts_the_count_again() -> None:
    def attempt(step: int, job: str = "7", **more: bool) -> dict[str, object]:
        return {"job": job, "restart": 0, "step": step, **more}

    assert attempts.count_stalls([], "7", 0) == 0
    assert attempts.count_stalls([attempt(0), attempt(0), attempt(5)], "7", 5) == 1
    assert attempts.count_stalls([attempt(5), attempt(5)], "7", 9) == 0
    assert attempts.count_stalls([attempt(5, job="6"), attempt(5)], "7", 5) == 1
    assert attempts.count_stalls([attempt(5), attempt(5, held=True)], "7", 5) == 0


def test_the_first_of_two_failing_ranks_keeps_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look before either writes, as ranks do that a collective lets down at the same moment."""
    run, both = RunFolder(tmp_path), threading.Barrier(2)
    read = RunFolder.read
    run.update(state="running")

    def read_together(self: RunFolder) -> dict:
        found = read(self)
        if found.get("state") == "running":
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(1)
        return found

    monkeypatch.setattr(RunFolder, "read", read_together)
    errors = [RuntimeError("the cause"), RuntimeError("its consequence")]
    reasons = []

    def fail(rank: int) -> None:
        attempts.failed(run, world(tmp_path, 0, rank), errors[rank])
        reasons.append(json.loads(run.run_json.read_text())["reason"])

    threads = [threading.Thread(target=fail, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reasons[0] == reasons[1]
