"""One at a time in a dataset folder: a build or a take-down. The kernel lets go when its process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.errors import InputError

LOCK = ".lock"


def take(data_dir: Path) -> int:
    """Take a dataset folder, which is made where it is missing; returns the handle for `release`.

    Raises:
        InputError: another process holds it.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink == 0:  # its holder finished, and removed it, a moment ago
            raise BlockingIOError
    except OSError as error:
        os.close(handle)
        raise InputError(f"data.dir={data_dir}: another process is building this dataset now.") from error
    return handle


def release(data_dir: Path, handle: int) -> None:
    """Let go of a dataset folder."""
    (data_dir / LOCK).unlink(missing_ok=True)
    os.close(handle)


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Hold a dataset folder for a while."""
    handle = take(data_dir)
    try:
        yield
    finally:
        release(data_dir, handle)
