"""`elm-queue list`: the queue as a table, as JSON or as CSV."""

from __future__ import annotations

import json
import os
import pwd
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slurm.tracker.poll import Picture
from slurm.tracker.rates import Rates
from slurm.tracker.runs import MOST_RUNS, Progress, folder_of, progress_of
from slurm.tracker.show import csv_text, moment, quantity, span, table
from slurm.tracker.squeue import Job
from slurm.tracker.why import family_of


@dataclass
class Filters:
    """Which jobs to show; an empty value lets everything pass. Several values are separated by commas."""

    user: str = ""
    account: str = ""
    partition: str = ""
    state: str = ""
    name: str = ""

    def keep(self, job: Job) -> bool:
        """Whether the job passes."""
        return (
            _chosen(self.user, job.user)
            and _chosen(self.account, job.account)
            and any(_chosen(self.partition, name) for name in job.partition.split(","))
            and _chosen(self.state.upper(), job.state)
            and self.name.lower() in job.name.lower()
        )


def _chosen(wanted: str, value: str) -> bool:
    return not wanted or value in wanted.split(",")


def me() -> str:
    """The name of the user who asks; the number of one whom the machine has no name for."""
    named = next(filter(None, map(os.environ.get, ("LOGNAME", "USER"))), None)
    try:
        return named or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@dataclass(slots=True)
class Row:
    """One line of the list: a job with what we know beyond Slurm."""

    job: Job
    waited: int | None
    start: int | None
    why: str
    units: float | None
    run: Progress | None

    @property
    def run_end(self) -> float | None:
        """When the training ends if it runs on: UTC epoch seconds."""
        left = self.run.seconds_left if self.run and self.job.running else None
        return None if left is None else time.time() + left

    @property
    def idle(self) -> float | None:
        """Since when nobody asks a running server, seconds; 0 while it answers; None for any other."""
        if self.run is None or self.run.requests is None or not self.job.running:
            return None
        return 0.0 if self.run.idle_since is None else max(0.0, time.time() - self.run.idle_since)


def rows(picture: Picture, filters: Filters, rates: Rates) -> list[Row]:
    """The jobs that pass the filters, running ones first, then by priority and age.

    Only the first `MOST_RUNS` own runs are looked up in their folders.
    """
    jobs = picture.jobs if filters == Filters() else filter(filters.keep, picture.jobs)
    jobs = sorted(jobs, key=lambda job: (job.pending, -job.priority, job.submit or 0, job.job_id))
    left = MOST_RUNS
    found = []
    for job in jobs:
        run = None
        if job.comment and left and folder_of(job.comment):
            left -= 1
            run = progress_of(job.comment, job.user)
        found.append(_row(job, picture.taken, rates, run))
    return found


def _row(job: Job, now: float, rates: Rates, run: Progress | None) -> Row:
    """Join one job with its cost so far (running) or at its full time limit (waiting)."""
    seconds = job.limit if job.pending else job.elapsed
    units = rates.units(job.partition, job.gpus, job.cpus, job.memory_mib, seconds, job.cluster)
    if units is not None and job.pending:
        units *= job.tasks
    return Row(
        job=job,
        waited=job.waited(now),
        start=job.start,
        why=family_of(job.reason, job.state).short if job.pending else "",
        units=units,
        run=run,
    )


# Column title → text for the table.
COLUMNS: dict[str, Callable[[Row], str]] = {
    "ID": lambda r: r.job.shown_id,
    "NAME": lambda r: r.job.name,
    "USER": lambda r: r.job.user,
    "PARTITION": lambda r: r.job.partition,
    "STATE": lambda r: r.job.state.lower() + (f" (attempt {r.job.restarts + 1})" if r.job.restarts else ""),
    "NODES": lambda r: str(r.job.nodes),
    "GPUS": lambda r: str(r.job.gpus),
    "ELAPSED/LIMIT": lambda r: f"{span(r.job.elapsed)}/{span(r.job.limit) if r.job.limit else 'none'}",
    "WAITED": lambda r: span(r.waited),
    "START": lambda r: moment(r.start),
    "WHY": lambda r: r.why,
}

RUN_COLUMNS: dict[str, Callable[[Row], str]] = {
    "STEP": lambda r: _step(r.run) if r.run else "",
    "LOSS": lambda r: f"{r.run.loss:.3f}" if r.run and r.run.loss is not None else "",
    "TOKENS/S": lambda r: quantity(r.run.tokens_per_second, 0) if r.run and r.run.tokens_per_second else "",
    "RUN ENDS": lambda r: moment(r.run_end) if r.run_end else "",
}


SERVER_COLUMNS: dict[str, Callable[[Row], str]] = {
    "REQUESTS": lambda r: f"{r.run.requests:,}" if r.run and r.run.requests is not None else "",
    "IDLE": lambda r: span(r.idle) if r.idle is not None else "",
}


def _step(run: Progress) -> str:
    """How far a training run is; a server has no steps."""
    return "" if run.requests is not None else f"{run.step}/{'?' if run.steps is None else run.steps}"


def text(found: list[Row], rates: Rates, picture: Picture) -> str:
    """The table and the picture's age under it, and how much the filters left out."""
    lines = [grid(found, rates)] if found else []
    if not picture.jobs:
        lines.append("no job waits or runs")
    elif len(found) < len(picture.jobs):
        lines.append(f"{len(found)} of {len(picture.jobs)} lines pass the filters")
    return "\n".join([*lines, mark(picture)])


def grid(found: list[Row], rates: Rates) -> str:
    """The table alone; budget and run columns only where a job has a rate or a run."""
    columns = dict(COLUMNS)
    if len({r.job.cluster for r in found}) > 1:
        columns = {"CLUSTER": lambda r: r.job.cluster} | columns
    if any(r.units is not None for r in found):
        columns[rates.unit] = lambda r: quantity(r.units)
    if any(r.run for r in found):
        columns |= RUN_COLUMNS
    if any(r.run and r.run.requests is not None for r in found):
        columns |= SERVER_COLUMNS
    return table({title: [cell(r) for r in found] for title, cell in columns.items()})


# Column of JSON and CSV → raw value: times in UTC epoch seconds, spans in seconds.
VALUES: dict[str, Callable[[Row], Any]] = {
    "id": lambda r: r.job.shown_id,
    "job_id": lambda r: r.job.job_id,
    "cluster": lambda r: r.job.cluster,
    "tasks": lambda r: r.job.tasks,
    "name": lambda r: r.job.name,
    "user": lambda r: r.job.user,
    "account": lambda r: r.job.account,
    "partition": lambda r: r.job.partition,
    "qos": lambda r: r.job.qos,
    "state": lambda r: r.job.state,
    "restarts": lambda r: r.job.restarts,
    "nodes": lambda r: r.job.nodes,
    "cpus": lambda r: r.job.cpus,
    "gpus": lambda r: r.job.gpus,
    "submit": lambda r: r.job.submit,
    "elapsed": lambda r: r.job.elapsed,
    "limit": lambda r: r.job.limit,
    "waited": lambda r: r.waited,
    "start": lambda r: r.start,
    "reason": lambda r: r.job.reason,
    "why": lambda r: r.why,
    "units": lambda r: None if r.units is None else round(r.units, 3),
    "run_folder": lambda r: str(r.run.folder) if r.run else None,
    "step": lambda r: r.run.step if r.run else None,
    "steps": lambda r: r.run.steps if r.run else None,
    "loss": lambda r: r.run.loss if r.run else None,
    "tokens_per_second": lambda r: r.run.tokens_per_second if r.run else None,
    "requests": lambda r: r.run.requests if r.run else None,
    "idle": lambda r: None if r.idle is None else round(r.idle),
    "run_ends": lambda r: None if r.run_end is None else round(r.run_end),
}


def json_text(found: list[Row], picture: Picture) -> str:
    """The list as one JSON object that says how old it is and whether it is stale."""
    return json.dumps(
        {
            "taken": round(picture.taken, 3),
            "age": round(picture.age, 3),
            "stale": picture.failure is not None,
            "failure": picture.failure,
            "jobs": [{name: value(r) for name, value in VALUES.items()} for r in found],
        },
        ensure_ascii=False,
    )


def csv_list(found: list[Row], picture: Picture) -> str:
    """The list as CSV; each line says how old it is, because a file outlives a warning on the screen."""
    header = [*VALUES, "age", "stale"]
    age, stale = round(picture.age), int(picture.failure is not None)
    return csv_text(header, ([*(value(r) for value in VALUES.values()), age, stale] for r in found))


def mark(picture: Picture) -> str:
    """One line on the picture's age."""
    if picture.failure is None:
        return f"as of {picture.age:.0f} s ago"
    return f"STALE: this is {span(picture.age)} old, because Slurm does not answer ({picture.failure})"
