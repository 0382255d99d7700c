"""Our own training runs behind the queue: a job whose comment is `elm:<run folder>`.

The comment is written by whoever submits the job, so the folder it names is looked at with care: only plain
files of the job's own user, and never more than `MOST_BYTES` of them.
"""

from __future__ import annotations

import json
import os
import pwd
import stat
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.errors import InputError
from elm_megatron.run.folder import RunFolder
from elm_megatron.serve import status

PREFIX = "elm:"
MOST_BYTES = 1 << 20
TAIL_BYTES = 64 << 10
# A list of thousands of runs would read thousands of files.
MOST_RUNS = 500


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        folder: the run's folder.
        state: state of run.json.
        step: finished updates.
        steps: updates in all, None when the run did not say yet.
        loss: last logged loss, nats per token.
        tokens_per_second: of the whole job, last logged.
        step_seconds: median of the logged steps in the tail of metrics.jsonl.
        kwh: energy so far, measured or modelled, None when unknown.
        updated: when the last step was logged, UTC epoch seconds.
        reason: why it is in that state, "" when run.json gives none.
        mfu: share of the peak, last logged.
        memory_bytes: of the rank that used most, last logged.
        requests: that a server has answered, None for what is no server.
        idle_since: when a server was last asked, UTC epoch seconds; None while it answers.
    """

    folder: Path
    state: str
    step: int
    steps: int | None
    loss: float | None
    tokens_per_second: float | None
    step_seconds: float | None
    kwh: float | None
    updated: float | None
    reason: str = ""
    mfu: float | None = None
    memory_bytes: float | None = None
    requests: int | None = None
    idle_since: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds of training left at the median step time."""
        if self.steps is None or self.step_seconds is None:
            return None
        return max(0, self.steps - self.step) * self.step_seconds


def folder_of(comment: str) -> Path | None:
    """The run folder a job's comment names, or None."""
    if not comment.startswith(PREFIX + "/") or "\0" in comment:
        return None
    return Path(comment.removeprefix(PREFIX))


def progress_of(comment: str, user: str | None) -> Progress | None:
    """The progress of the run that a job's comment names; None when there is none to read.

    Args:
        comment: `elm:<run folder>`.
        user: owner of the job, and therefore of the files; None for a folder that its reader named.
    """
    folder = folder_of(comment)
    if folder is None:
        return None
    run = RunFolder(folder)
    try:
        owner = _uid(user) if user is not None else run.run_json.lstat().st_uid
        if not _readable(run.run_json, owner):
            return None
        record = run.read()
        rows = _tail(run.metrics, owner)
        serving = status.read(folder) if _is_served(folder, owner) else {}
    except (OSError, KeyError, InputError, ValueError):
        return None
    return _with_requests(_progress(folder, record, rows), serving)


def _is_served(folder: Path, owner: int) -> bool:
    path = folder / status.STATUS_FILE
    return path.exists() and _readable(path, owner)


def _with_requests(found: Progress, serving: dict[str, Any]) -> Progress:
    """What was asked of a server, on top of what every run has."""
    requests, last = _figure(serving.get("requests")), _figure(serving.get("last_request"))
    if requests is None:
        return found
    return replace(
        found,
        requests=int(requests),
        tokens_per_second=_figure(serving.get("tokens_per_second")),
        idle_since=None if _figure(serving.get("open")) else last,
        updated=_figure(serving.get("updated")),
    )


def _uid(user: str) -> int:
    """The number of a user; squeue shows the number itself of one whom the machine has no name for."""
    return int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid


def _progress(folder: Path, record: dict[str, Any], rows: list[dict[str, Any]]) -> Progress:
    """Join run.json with the last rows of metrics.jsonl; a value of the wrong type counts as unknown."""
    last = rows[-1] if rows else {}
    times = [t for row in rows if (t := _figure(row.get("step_seconds"))) is not None]
    step = _figure(last.get("step")) or _figure(record.get("step")) or 0
    steps = _figure(record.get("steps"))
    return Progress(
        folder=folder,
        state=str(record.get("state", "")),
        step=int(step),
        steps=None if steps is None else int(steps),
        loss=_figure(last.get("loss", record.get("loss"))),
        tokens_per_second=_figure(last.get("tokens_per_second")),
        step_seconds=statistics.median(times) if times else None,
        kwh=_kwh(record),
        updated=_figure(last.get("time")),
        reason=str(record.get("reason") or ""),
        mfu=_figure(last.get("mfu")),
        memory_bytes=_figure(last.get("memory_bytes")),
    )


def _kwh(record: dict[str, Any]) -> float | None:
    """Energy with the rest of the nodes and the data centre; of a run of an earlier version its counter's."""
    footprint = record.get("footprint")
    whole = _figure(footprint.get("kwh")) if isinstance(footprint, dict) else None
    return _figure(record.get("kwh", record.get("kWh"))) if whole is None else whole


def _figure(value: object) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e18 else None


def _readable(path: Path, owner: int) -> bool:
    """Whether the path is a plain file of `owner` of a sensible size: no link, no pipe, nobody else's."""
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_uid == owner and found.st_size <= MOST_BYTES


def _tail(path: Path, owner: int) -> list[dict[str, Any]]:
    """The last rows of a JSON lines file; lines that are cut off at either end are left out."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return []
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != owner:
            return []
        start = max(0, found.st_size - TAIL_BYTES)
        file.seek(start)
        lines = file.read(TAIL_BYTES).split(b"\n")
    rows = []
    for line in lines[1 if start else 0 : -1]:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
