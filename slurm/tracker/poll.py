"""One shared picture of the queue: however many ask, Slurm is asked once in thirty seconds.

The last good picture is kept in the cache folder (`cache.py`) as the raw text of squeue and sinfo. A command
that finds it too old takes a file lock and asks Slurm; the others wait for that answer. When Slurm does not
answer, the last picture stays and is marked stale, and nobody asks again before `RETRY_SECONDS` have passed.
`ELM_QUEUE_MAX_AGE` shortens the thirty seconds, for a private test cluster.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm.tracker import cache, command, nodes, squeue
from slurm.tracker.command import Unreachable
from slurm.tracker.nodes import Node
from slurm.tracker.squeue import Job

PICTURE = "picture"
TEXTS = ("squeue", "sinfo")
MAX_AGE_SECONDS = 30.0
RETRY_SECONDS = 10.0
TIMEOUT_SECONDS = 60.0
# With a picture to fall back on there is no reason to wait as long.
TIMEOUT_WITH_PICTURE_SECONDS = 15.0


@dataclass
class Picture:
    """The queue at one moment.

    Attributes:
        jobs: every job that waits or runs.
        nodes: every node.
        taken: when Slurm was asked, UTC epoch seconds.
        seconds: how long its answer took.
        failure: why there is no newer picture, or None when this one is as new as it may be.
    """

    jobs: list[Job]
    nodes: list[Node]
    taken: float
    seconds: float
    failure: str | None = None

    @property
    def age(self) -> float:
        """Seconds since Slurm was asked."""
        return max(0.0, time.time() - self.taken)


def max_age() -> float:
    """Seconds for which a picture is good."""
    try:
        return float(os.environ["ELM_QUEUE_MAX_AGE"])
    except (KeyError, ValueError):
        return MAX_AGE_SECONDS


def picture(oldest: float | None = None) -> Picture:
    """The queue, at most `oldest` seconds old (default `max_age()`), or the last known one marked stale.

    Raises:
        Unreachable: Slurm does not answer and there is no earlier picture.
    """
    oldest = max_age() if oldest is None else oldest
    folder = cache.folder()
    if folder is None:
        return _parsed(_ask(None))
    if found := _read(folder, oldest):
        return _parsed(found)
    with cache.locked(folder / "lock"):
        # Whoever held the lock before us has asked already.
        if found := _read(folder, oldest):
            return _parsed(found)
        failure = _recent_failure(folder, min(RETRY_SECONDS, oldest))
        if failure is None:
            try:
                found = _ask(folder)
            except Unreachable as error:
                failure = str(error)
                cache.keep(folder / "failure.json", json.dumps({"time": time.time(), "error": failure}))
        found = found or _read(folder)
    if found is None:
        raise Unreachable(failure)
    return _parsed(found, failure)


def _ask(folder: Path | None) -> dict[str, Any]:
    """Ask squeue and sinfo, keep the answer in the cache folder and return it."""
    kept = folder and folder / PICTURE
    timeout = TIMEOUT_WITH_PICTURE_SECONDS if kept and kept.exists() else TIMEOUT_SECONDS
    separator = command.separator()
    begin = time.time()
    texts = {
        "squeue": command.run(squeue.command(separator), timeout),
        "sinfo": command.run(nodes.command(separator), timeout),
    }
    answer = {"separator": separator, "taken": begin, "seconds": time.time() - begin, **texts}
    if kept:
        cache.keep(kept, _packed(answer))
        kept.with_name("failure.json").unlink(missing_ok=True)
    return answer


def _read(folder: Path, oldest: float = float("inf")) -> dict[str, Any] | None:
    """The kept answer, or None when there is none, it is older than `oldest`, or it cannot be read."""
    file = folder / PICTURE
    try:
        # Its file is younger than the answer, and a queue of ten thousand jobs takes a while to read.
        if time.time() - file.stat().st_mtime > oldest:
            return None
        answer = _unpacked(file.read_bytes())
        age = time.time() - answer["taken"]
        # A clock set back must not make an old picture young for ever.
        return answer if (age if age >= 0 else float("inf")) <= oldest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _packed(answer: dict[str, Any]) -> bytes:
    """A line of JSON, then the texts as they are: to quote a long queue as JSON takes long."""
    texts = [answer[name].encode() for name in TEXTS]
    head = {name: value for name, value in answer.items() if name not in TEXTS}
    return b"".join([json.dumps(head | {"lengths": [*map(len, texts)]}).encode(), b"\n", *texts])


def _unpacked(data: bytes) -> dict[str, Any]:
    """The answer of `_packed`; a ValueError when it was cut off."""
    line, _, rest = data.partition(b"\n")
    answer = json.loads(line)
    if sum(answer["lengths"]) != len(rest):
        raise ValueError("cut off")
    first = answer.pop("lengths")[0]
    return answer | {"squeue": rest[:first].decode(), "sinfo": rest[first:].decode()}


def _parsed(answer: dict[str, Any], failure: str | None = None) -> Picture:
    separator = answer["separator"]
    return Picture(
        jobs=squeue.parse(answer["squeue"], separator),
        nodes=nodes.parse(answer["sinfo"], separator),
        taken=answer["taken"],
        seconds=answer["seconds"],
        failure=failure,
    )


def _recent_failure(folder: Path, seconds: float) -> str | None:
    """What Slurm said when it was asked in vain less than `seconds` ago."""
    try:
        failure = json.loads((folder / "failure.json").read_bytes())
        return failure["error"] if 0 <= time.time() - failure["time"] < seconds else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
