"""`elm-queue eta ID`: when a job starts and when its training ends, each figure with its source."""

import math
import time
from dataclasses import dataclass

from slurm.tracker.history import DAY, History
from slurm.tracker.runs import Progress
from slurm.tracker.show import moment, span
from slurm.tracker.squeue import Job

# Fewer jobs like this one say nothing about the next.
ENOUGH_SAMPLES = 20
HISTORY_DAYS = 90


@dataclass
class Waits:
    """What history says of the wait of jobs like this one.

    Attributes:
        samples: How many there were.
        p50, p90: Waits in seconds; None below `ENOUGH_SAMPLES`.
    """

    samples: int
    p50: int | None = None
    p90: int | None = None


def waits_like(job: Job, history: History, waited: int = 0) -> Waits:
    """Waits of jobs like this one that had waited at least as long as this one has."""
    since = time.time() - HISTORY_DAYS * DAY
    found = [wait for wait in history.waits(job.partition, job.nodes, job.limit, since) if wait >= waited]
    if len(found) < ENOUGH_SAMPLES:
        return Waits(len(found))
    return Waits(len(found), quantile(found, 0.5), quantile(found, 0.9))


def quantile(ordered: list[int], share: float) -> int:
    """The smallest value that at least `share` of the values do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def estimate(job: Job, run: Progress | None, history: History, now: float) -> list[str]:
    """Lines that say when the job starts and ends, each naming its source."""
    lines = []
    start = now
    if job.pending:
        waited = job.waited(now) or 0
        waits = waits_like(job, history, waited)
        lines += start_lines(job, waits, now, waited)
        start = expected_start(job, waits, now, waited)
    again = waits_like(job, history).p50
    lines += end_lines(job, run, start, now, again)
    return lines


def start_lines(job: Job, waits: Waits, now: float, waited: int) -> list[str]:
    lines = []
    if job.start and job.start > now:
        lines.append(f"start {moment(job.start)}, in {span(job.start - now)} (source: Slurm's scheduler)")
    else:
        lines.append("start unknown to Slurm's scheduler")
    if waits.p50 is None:
        lines.append(
            f"history is silent: {waits.samples} jobs like this one, {ENOUGH_SAMPLES} are needed "
            f"(source: sacct, {HISTORY_DAYS} days)"
        )
    else:
        assert waits.p90 is not None
        lines.append(
            f"start by {moment(now + waits.p50 - waited)} in half of the cases, by "
            f"{moment(now + waits.p90 - waited)} in nine of ten (source: {waits.samples} jobs of like "
            f"partition, nodes and time limit in {HISTORY_DAYS} days)"
        )
    return lines


def expected_start(job: Job, waits: Waits, now: float, waited: int) -> float | None:
    """The scheduler's estimate, else history's median, else None."""
    if job.start and job.start > now:
        return job.start
    return None if waits.p50 is None else now + waits.p50 - waited


def end_lines(
    job: Job, run: Progress | None, start: float | None, now: float, again: int | None
) -> list[str]:
    """When the job ends: a training's last step for our own runs, the time limit for the others."""
    left = run.seconds_left if run else None
    if run is None or left is None:
        if job.pending:
            if start is None or job.limit is None:
                return [f"end unknown: its start is, and its time limit is {span(job.limit)} from then"]
            return [f"end {moment(start + job.limit)} at the latest (source: its start and its time limit)"]
        if job.end is None:
            return ["end unknown: it has no time limit"]
        return [f"end {moment(job.end)} at the latest (source: its time limit)"]
    assert run.steps is not None and run.step_seconds is not None
    source = f"{run.steps - run.step} steps left × {run.step_seconds:.3g} s, the median step"
    if start is None:
        return [f"training needs {span(left)} more ({source}); its start is unknown"]
    room = (job.end - now) if job.end and not job.pending else job.limit
    lives = 0 if room is None or left <= room or not job.limit else math.ceil((left - room) / job.limit)
    if lives and again is None:
        return [
            f"training needs {span(left)} more ({source}) and {lives} more start(s), whose waits are unknown"
        ]
    waiting = lives * (again or 0)
    text = f" + {lives} more start(s) × {span(again)}, the median wait" if lives else ""
    return [f"training ends {moment(start + left + waiting)} (source: {source}{text})"]
