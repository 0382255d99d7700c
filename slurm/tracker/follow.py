"""`elm-queue log RUN|ID`: the end of a log, and what is added to it while the job runs."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from conf.errors import InputError
from slurm.tracker.logs import log_path
from slurm.tracker.show import escaped
from slurm.tracker.targets import Target

PAUSE_SECONDS = 0.5
ASK_SECONDS = 5.0
BLOCK = 1 << 16


def path_of(target: Target) -> Path:
    """The log of a job or run: Slurm's, else rank 0's in the run folder, the newest job's first.

    Raises:
        InputError: there is none, or it is no plain file.
    """
    candidates = [Path(path)] if target.job and (path := log_path(target.job)) else []
    if target.run:
        candidates += [target.run.logs / f"{job_id}_0_log.out" for job_id in reversed(target.job_ids)]
        candidates += sorted(target.run.logs.glob("*.out"), key=lambda file: -file.stat().st_mtime)
    for path in candidates:
        try:
            if stat.S_ISREG(path.stat().st_mode):
                return path
        except OSError:
            continue
    if candidates:
        raise InputError(f"log: {escaped(str(candidates[0]))} is not there, or is no plain file")
    raise InputError(
        f"log: nothing says where the log of {target.text} is; sacct keeps it from Slurm 24.05 on"
    )


def show(path: Path, lines: int, live: Callable[[], bool] | None) -> None:
    """Print the last lines of a log, and go on while `live` says that its job waits or runs.

    Args:
        path: the file; one that is replaced or cut, by a requeue for example, is read from its new beginning.
        lines: how many of its last lines.
        live: asked every few seconds; None prints the end of the log only.
    """
    print(f"==> {escaped(str(path))} <==", file=sys.stderr)
    for line in _last(path, lines):
        print(escaped(line))
    if live is None:
        return
    sys.stdout.flush()
    file, asked, going = path.open("rb"), 0.0, True
    file.seek(0, os.SEEK_END)
    try:
        while True:
            if time.monotonic() - asked > ASK_SECONDS:
                going, asked = live(), time.monotonic()
            file = _print_new(file, path)
            if not going:
                return
            time.sleep(PAUSE_SECONDS)
    finally:
        file.close()


def _last(path: Path, lines: int) -> Iterator[str]:
    """The last lines of a file, read from its end."""
    with path.open("rb") as file:
        position, data = file.seek(0, os.SEEK_END), b""
        while position and data.count(b"\n") <= lines:
            step = min(BLOCK, position)
            position -= step
            file.seek(position)
            data = file.read(step) + data
    found = data.decode(errors="replace").split("\n")
    if found[-1] == "":
        found.pop()
    yield from found[-lines:] if lines else ()


def _print_new(file: IO[bytes], path: Path) -> IO[bytes]:
    """Print what was added; a new or cut file is opened again."""
    while data := file.read(BLOCK):
        text = data.decode(errors="replace")
        sys.stdout.write("\n".join(map(escaped, text.split("\n"))))
    sys.stdout.flush()
    try:
        now = path.stat()
    except OSError:
        return file
    held = os.fstat(file.fileno())
    if (now.st_dev, now.st_ino) != (held.st_dev, held.st_ino) or now.st_size < file.tell():
        file.close()
        return path.open("rb")
    return file
