"""One at a time in a dataset or corpus folder: a build, a harvest or a take-down.

The kernel lets go of a folder when the process that holds it ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conf.errors import InputError, disk_full

LOCK = ".lock"


def take(folder: Path) -> int:
    """Take a folder, which is made where it is missing; returns the handle for `release`.

    Raises:
        InputError: another process holds it, it cannot be written, or its file system has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        if disk_full(error):
            raise
        raise InputError(f"{folder} cannot be written ({error.strerror}).") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink == 0:  # its holder finished, and removed it, a moment ago
            raise BlockingIOError
    except BlockingIOError as error:
        os.close(handle)
        raise InputError(
            f"another process is working in {folder} now (a build, harvest or take-down)."
        ) from error
    except OSError as error:
        os.close(handle)
        (folder / LOCK).unlink(missing_ok=True)
        raise InputError(
            f"{folder}: its file system has no locks ({error.strerror}), without which two builds could mix; "
            "have it mounted with flock, or choose another folder."
        ) from error
    return handle


def release(folder: Path, handle: int) -> None:
    """Let go of a folder."""
    try:
        (folder / LOCK).unlink(missing_ok=True)
    finally:
        os.close(handle)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder for a while."""
    handle = take(folder)
    try:
        yield
    finally:
        release(folder, handle)
