"""One shared picture of the queue: however many ask, Slurm is asked once in thirty seconds.

The last good picture lies in a cache folder as the raw text of squeue and sinfo. Who finds it too old takes
a file lock and asks Slurm; the others wait for that answer. When Slurm does not answer, the last picture
stays and is marked stale, and nobody asks again before `RETRY_SECONDS` have passed.

The folder is the user's own (`~/.cache/elm-queue`). An admin may name one for a group of users in
`ELM_QUEUE_CACHE`; whoever can write there is believed. `ELM_QUEUE_MAX_AGE` shortens the thirty seconds, for a
private test cluster.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from slurm.tracker import command, nodes, squeue
from slurm.tracker.command import Unreachable
from slurm.tracker.nodes import Node
from slurm.tracker.squeue import Job

MAX_AGE_SECONDS = 30.0
RETRY_SECONDS = 10.0
TIMEOUT_SECONDS = 60.0
# With a picture to fall back on there is no reason to wait as long.
TIMEOUT_WITH_PICTURE_SECONDS = 15.0


@dataclass
class Picture:
    """The queue at one moment.

    Attributes:
        jobs: Every job that waits or runs.
        nodes: Every node.
        taken: When Slurm was asked, UTC epoch seconds.
        seconds: How long its answer took.
        failure: Why there is no newer picture, or None when this one is as new as it may be.
    """

    jobs: list[Job]
    nodes: list[Node]
    taken: float
    seconds: float
    failure: str | None = None

    @property
    def age(self) -> float:
        return max(0.0, time.time() - self.taken)


def max_age() -> float:
    """Seconds for which a picture is good."""
    try:
        return float(os.environ["ELM_QUEUE_MAX_AGE"])
    except (KeyError, ValueError):
        return MAX_AGE_SECONDS


def cache_folder() -> Path:
    """The folder of this cluster's picture and history, made with mode 0700 if it is missing."""
    shared = os.environ.get("ELM_QUEUE_CACHE")
    base = Path(shared) if shared else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    # Each cluster has its own: its slurm.conf and the cluster chosen with SLURM_CLUSTERS tell them apart.
    cluster = f"{os.environ.get('SLURM_CONF', '')}\n{os.environ.get('SLURM_CLUSTERS', '')}"
    folder = base / ("" if shared else "elm-queue") / sha256(cluster.encode()).hexdigest()[:12]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def picture(oldest: float | None = None) -> Picture:
    """The queue, at most `oldest` seconds old (default `max_age()`), or the last known one marked stale.

    Raises:
        Unreachable: Slurm does not answer and there is no earlier picture.
    """
    oldest = max_age() if oldest is None else oldest
    folder = cache_folder()
    if found := read(folder, oldest):
        return parsed(found)
    with lock(folder):
        # Whoever held the lock before us has asked already.
        if found := read(folder, oldest):
            return parsed(found)
        failure = recent_failure(folder, min(RETRY_SECONDS, oldest))
        if failure is None:
            try:
                found = ask(folder)
            except Unreachable as error:
                failure = str(error)
                write(folder / "failure.json", {"time": time.time(), "error": failure})
        found = found or read(folder)
    if found is None:
        raise Unreachable(failure)
    return parsed(found, failure)


def ask(folder: Path) -> dict[str, Any]:
    """Asks squeue and sinfo, keeps the answer in the cache folder and returns it."""
    kept = folder / "picture.json"
    timeout = TIMEOUT_WITH_PICTURE_SECONDS if kept.exists() else TIMEOUT_SECONDS
    separator = command.separator()
    begin = time.time()
    texts = {
        "squeue": command.run(squeue.command(separator), timeout),
        "sinfo": command.run(nodes.command(separator), timeout),
    }
    answer = {"separator": separator, "taken": begin, "seconds": time.time() - begin, **texts}
    write(kept, answer)
    (folder / "failure.json").unlink(missing_ok=True)
    return answer


def read(folder: Path, oldest: float = float("inf")) -> dict[str, Any] | None:
    """The kept answer, or None when there is none, it is older than `oldest`, or it cannot be read."""
    file = folder / "picture.json"
    try:
        # Its file is younger than the answer, and a queue of ten thousand jobs takes a while to read.
        if time.time() - file.stat().st_mtime > oldest:
            return None
        answer = json.loads(file.read_bytes())
        age = time.time() - answer["taken"]
        # A clock set back must not make an old picture young for ever.
        return answer if (age if age >= 0 else float("inf")) <= oldest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def parsed(answer: dict[str, Any], failure: str | None = None) -> Picture:
    separator = answer["separator"]
    return Picture(
        jobs=squeue.parse(answer["squeue"], separator),
        nodes=nodes.parse(answer["sinfo"], separator),
        taken=answer["taken"],
        seconds=answer["seconds"],
        failure=failure,
    )


def recent_failure(folder: Path, seconds: float) -> str | None:
    """What Slurm said when it was asked in vain less than `seconds` ago."""
    try:
        failure = json.loads((folder / "failure.json").read_bytes())
        return failure["error"] if 0 <= time.time() - failure["time"] < seconds else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, value: dict[str, Any]) -> None:
    """Writes JSON under a temporary name and renames it, so that no reader sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        # In one piece: `json.dump` writes piece by piece and takes three times as long.
        file.write(json.dumps(value).encode())
    temporary.replace(path)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One process at a time; the kernel releases the lock of one that dies."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
