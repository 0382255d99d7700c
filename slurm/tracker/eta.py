"""`elm-queue eta ID`: when a job starts and when its training ends, each figure with its source."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from slurm.tracker.history import DAY, History
from slurm.tracker.runs import Progress
from slurm.tracker.show import moment, span
from slurm.tracker.squeue import Job
from slurm.tracker.why import family_of

# Fewer jobs like this one say nothing about the next.
ENOUGH_SAMPLES = 20
HISTORY_DAYS = 90
# Families of reasons that no waiting helps against.
STUCK = frozenset(
    {
        "never",
        "special_exit",
        "requeue_hold",
        "held_user",
        "held_admin",
        "requeue_held",
        "failed",
        "reservation_gone",
        "constraints",
    }
    | {"not_allowed", "partition_limit", "deadline"}
)


@dataclass
class Waits:
    """What history says of the wait of jobs like this one.

    Attributes:
        samples: how many there were.
        p50, p90: waits in seconds; None below `ENOUGH_SAMPLES`.
        longer_than: only jobs that waited at least so many seconds were looked at.
    """

    samples: int
    p50: int | None = None
    p90: int | None = None
    longer_than: int = 0


def waits_like(job: Job, history: History, waited: int = 0) -> Waits:
    """Waits of jobs like this one that had waited at least as long as this one has."""
    since = time.time() - HISTORY_DAYS * DAY
    found = [wait for wait in history.waits(job.partition, job.nodes, job.limit, since) if wait >= waited]
    if len(found) < ENOUGH_SAMPLES:
        return Waits(len(found), longer_than=waited)
    return Waits(len(found), _quantile(found, 0.5), _quantile(found, 0.9), waited)


def _quantile(ordered: list[int], share: float) -> int:
    """The smallest value that at least `share` of the values do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def estimate(job: Job, run: Progress | None, history: History | None, now: float) -> list[str]:
    """Lines that say when the job starts and ends, each naming its source; history may be missing."""
    lines = []
    start: float | None = now
    if job.pending:
        waited = job.waited(now) or 0
        waits = waits_like(job, history, waited) if history else Waits(0)
        lines.append(_scheduler_line(job, now))
        if history:
            lines.append(_history_line(job, waits))
        start = _expected_start(job, waits, now)
    again = waits_like(job, history).p50 if history else None
    lines += end_lines(job, run, start, now, again)
    return lines


def _scheduler_line(job: Job, now: float) -> str:
    family = family_of(job.reason, job.state)
    if family.key in STUCK:
        return f"does not start as it is: {family.short}; see elm-queue why {job.shown_id}"
    if job.start and job.start > now:
        return f"start {moment(job.start)}, in {span(job.start - now)} (source: Slurm's scheduler)"
    return "start unknown to Slurm's scheduler"


def _history_line(job: Job, waits: Waits) -> str:
    if waits.p50 is None or waits.p90 is None:
        return (
            f"history is silent: {waits.samples} jobs like this one, {ENOUGH_SAMPLES} are needed "
            f"(source: sacct, {HISTORY_DAYS} days)"
        )
    source = (
        f"source: {waits.samples} jobs of like partition, nodes and time limit in {HISTORY_DAYS} days"
        + (f" that waited longer than its {span(waits.longer_than)}" if waits.longer_than else "")
    )
    if job.eligible is None or family_of(job.reason, job.state).key in STUCK:
        # It waits for somebody's hand or for another job, which history knows nothing of.
        return (
            f"once it may start, half of the cases wait {span(waits.p50)}, nine of ten {span(waits.p90)} "
            f"at most ({source})"
        )
    return (
        f"start by {moment(job.eligible + waits.p50)} in half of the cases, by "
        f"{moment(job.eligible + waits.p90)} in nine of ten ({source})"
    )


def _expected_start(job: Job, waits: Waits, now: float) -> float | None:
    """The scheduler's estimate, else history's median, else None."""
    if family_of(job.reason, job.state).key in STUCK:
        return None
    if job.start and job.start > now:
        return job.start
    return None if waits.p50 is None or job.eligible is None else job.eligible + waits.p50


def end_lines(
    job: Job, run: Progress | None, start: float | None, now: float, again: int | None
) -> list[str]:
    """When the job ends: a training's last step for our own runs, the time limit for the others."""
    left = run.seconds_left if run else None
    if run is None or left is None:
        if job.pending:
            if start is None or job.limit is None:
                room = "no time limit ends it" if job.limit is None else f"it may run {span(job.limit)}"
                return [f"end unknown, like its start; {room}"]
            return [f"end {moment(start + job.limit)} at the latest (source: its start and its time limit)"]
        if job.end is None:
            return ["end unknown: it has no time limit"]
        return [f"end {moment(job.end)} at the latest (source: its time limit)"]
    assert run.steps is not None and run.step_seconds is not None
    source = f"{run.steps - run.step} steps left × {run.step_seconds:.3g} s, the median step"
    if start is None:
        return [f"training needs {span(left)} more ({source}); its start is unknown"]
    room = (job.end - now) if job.end and not job.pending else job.limit
    attempts = 0 if room is None or left <= room or not job.limit else math.ceil((left - room) / job.limit)
    if attempts and again is None:
        return [
            f"training needs {span(left)} more ({source}) and {attempts} more start(s), "
            "whose waits are unknown"
        ]
    waiting = attempts * (again or 0)
    text = f" + {attempts} more start(s) × {span(again)}, the median wait" if attempts else ""
    return [f"training ends {moment(start + left + waiting)} (source: {source}{text})"]
