"""The attempts of one Slurm job: each start after a requeue is one. Kept in run.json by rank 0.

An attempt owns the run: run.json names the owner as [job id, restart]. A task of an earlier attempt, on a
node that the controller had given up, ends itself as soon as it sees that another attempt owns the run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from conf.errors import InputError
from elm_megatron.run import requests
from elm_megatron.run.folder import ATTEMPTS, OWNER, RunFolder
from elm_megatron.run.world import Outcome, World
from slurm.jobs import task
from slurm.jobs.environment import asking
from slurm.tracker import fields

FENCE_SECONDS = 2.0
BEGIN_SECONDS = 600.0
NONE: Mapping[str, str] = MappingProxyType({})
ACCOUNTING_SECONDS = 2.0
EXIT_HELD = 75  # EX_TEMPFAIL of sysexits.h; the batch script holds the job


def begin(
    run: RunFolder, world: World, max_stalls: int, progress: int | None = None, fenced: bool = True
) -> None:
    """Start an attempt: take ownership of the run, or hold the job if the last attempts made no progress.

    Called by every rank; rank 0 alone writes.

    Args:
        run: not bound to an attempt, since it is about to change hands.
        world: this rank's.
        max_stalls: attempts in a row that may make no progress.
        progress: how far the job has come, any number that changes with it; None is the step of its newest
            checkpoint.
        fenced: end this task when a later attempt owns the run. A server serves on until its successor does.

    Raises:
        SystemExit: the job is to be held; run.json has the reason.
    """
    mine = [world.job_id, world.restart]
    if world.rank == 0:
        requests.clear(run.path)  # what was asked of an earlier attempt
        record = run.read()
        attempts = record.get(ATTEMPTS, [])
        step = (run.latest_step() or 0) if progress is None else progress
        stalls = count_stalls(attempts, world.job_id, step, record.get("successors", {}))
        attempts.append({"job": world.job_id, "restart": world.restart, "step": step, "time": time.time()})
        if stalls >= max_stalls:
            attempts[-1]["held"] = True  # a release by a person starts the count again
            reason = why_held(world.job_id, attempts[-1 - stalls : -1])
            run.update(state="held", reason=reason, **{ATTEMPTS: attempts})
            print(f"held: {reason}; see the logs, then: scontrol release {world.job_id}", flush=True)
            mark(world, task.HOLD)
            raise SystemExit(EXIT_HELD)
        known = {OWNER: mine, ATTEMPTS: attempts, requests.ASKED_BY: None}
        run.update(state="running", reason=None, **known)
    else:
        _wait_for_rank_0(run, mine)
    if fenced:
        threading.Thread(target=_fence, args=(run, mine), daemon=True).start()


def count_stalls(
    attempts: list[dict[str, Any]],
    job_id: str,
    step: int,
    successors: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """How many attempts of this job, counted back from now, began at the step where the run is now.

    Args:
        attempts: all of the run, oldest first.
        job_id: of this job.
        step: where the run is now.
        successors: by id of a job, the job that it goes on for; both count as one.
    """
    count, jobs = 0, {job_id}
    while successors.get(job_id):
        job_id = successors[job_id]
        jobs.add(job_id)
    for attempt in reversed(attempts):
        if attempt.get("not_started"):
            continue
        if attempt["job"] not in jobs or attempt["step"] != step or attempt.get("held"):
            break
        count += 1
    return count


def why_held(job_id: str, attempts: list[dict[str, Any]]) -> str:
    """What the attempts that made no progress have in common.

    The save signal never interrupts a step: an attempt that was asked to save and saved nothing had not come
    to its first step yet.
    """
    times, step = len(attempts), attempts[-1]["step"]
    said = f"job {job_id} started {times} times at step {step} and made no new checkpoint"
    if all(attempt.get("outcome") == "requeue" for attempt in attempts):
        shortest = min(attempt["ended"] - attempt["time"] for attempt in attempts)
        return (
            f"{said}: the save signal came {shortest:.0f} s after the start, before the first step. Starting "
            "takes longer than cluster.time leaves before cluster.signal_seconds. A longer time needs "
            f"scancel {job_id} and the command again: scontrol release {job_id} goes on unchanged"
        )
    if all("outcome" not in attempt for attempt in attempts):
        return f"{said}: each time its tasks were lost without a word"
    return said


def end(run: RunFolder, world: World, outcome: Outcome) -> None:
    """End an attempt: tell the batch script what to do, and write down why it ended. Rank 0 only."""
    record = run.read()
    attempts = record[ATTEMPTS]
    attempts[-1] |= {"ended": time.time(), "outcome": outcome}
    known = {ATTEMPTS: attempts}
    if outcome == "done":
        run.update(state="done", reason=None, **known)
    elif outcome == "requeue":
        reason = "saved before the time limit, or asked to by USR2; about to be requeued"
        run.update(reason=reason, **known)  # the batch script writes the state when Slurm has done it
        mark(world, task.REQUEUE)
    elif outcome == "cancelled" and record.get("state") != "failed":  # else: stopped for another's failure
        mark(world, task.STOPPED)  # at once: this rank may be killed while it asks
        if asker := record.get(requests.ASKED_BY):
            run.update(state="cancelled", reason=f"{asker} asked it to stop: elm-queue stop", **known)
            return
        state, reason = why_stopped(world.job_id, world.restart)
        run.update(**({"state": state} if state else {}), reason=reason, **known)


def failed(run: RunFolder, world: World, error: Exception) -> None:
    """Write down the first failure of an attempt; any rank does, since rank 0 may be lost."""
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    reason = f"rank {world.rank}: {type(error).__name__}: {error}{notes}"
    run.update(unless="failed", state="failed", reason=reason)


def mark(world: World, name: str) -> None:
    """Make a marker file, which the batch script looks for."""
    (world.rendezvous / name).touch()


def why_stopped(job_id: str, restart: int) -> tuple[str | None, str]:
    """State and reason of a job that was told to stop; the state is None where the batch script decides.

    Slurm starts a preempted job again by itself, and has then counted the restart already; a cancelled one
    ends for good. While a job is ending, `scontrol` says COMPLETING in either case; accounting knows more.
    A job preempted with a grace time still runs, and would be requeued only at the end of that time: the
    batch script does so at once. At a site that cancels what it preempts, it hands in a successor.
    """
    shown = dict(re.findall(r"(\w+)=(\S*)", _ask("scontrol", "show", "job", job_id)))
    preempted = bool(fields.word(shown.get("PreemptTime", "")))
    if shown.get("JobState") == "RUNNING" and preempted:
        return None, "preempted with a grace time"
    word = _accounting(job_id, ending=shown.get("JobState", "RUNNING") != "RUNNING")
    said = f"Slurm says {word or shown.get('JobState', 'nothing')}"
    if int(shown.get("Restarts", 0)) > restart:
        return "requeued", said
    return (None if preempted else "cancelled"), said


def _accounting(job_id: str, ending: bool) -> str:
    """The state of a job by accounting, which lags behind the controller.

    Args:
        job_id: the job.
        ending: the controller says that the job ends: accounting is asked again until it has heard of it.
    """
    until = time.monotonic() + ACCOUNTING_SECONDS
    while True:
        word = _ask("sacct", "-X", "-n", "-P", "-j", job_id, "-o", "state").strip()
        if not ending or word not in ("", "RUNNING", "PENDING") or time.monotonic() > until:
            return word
        time.sleep(0.2)


def _ask(*command: str) -> str:
    """What a Slurm command prints, empty where it cannot be had (a container holds none).

    A command that fails is tried once more: the signal that ends a job may hit it too.
    """
    for _ in range(2):
        try:
            return subprocess.run(
                command,
                env=asking(),
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=10,
                check=True,
            ).stdout
        except subprocess.CalledProcessError:
            continue
        except (OSError, subprocess.SubprocessError):
            break
    return ""


def _fence(run: RunFolder, mine: list[Any]) -> None:
    """End this process once another attempt owns the run; SIGKILL, since nothing may be written any more."""
    while True:
        time.sleep(FENCE_SECONDS)
        try:
            owner = run.read().get(OWNER)
        except (OSError, InputError):  # a file system that hesitates is not a reason to die; ask again
            continue
        if owner not in (None, mine):
            os.write(2, f"the run belongs to job {owner[0]} (restart {owner[1]}) now; ending.\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_rank_0(run: RunFolder, mine: list[Any]) -> None:
    until = time.monotonic() + BEGIN_SECONDS
    while run.read().get(OWNER) != mine:
        if time.monotonic() > until:
            raise TimeoutError(f"rank 0 did not begin within {BEGIN_SECONDS:.0f} s")
        time.sleep(0.1)
