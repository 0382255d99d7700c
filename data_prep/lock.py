"""One process at a time in a dataset or corpus folder: a build, a harvest or a take-down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from conf.errors import InputError, disk_full
from data_prep.files import Taken, locked

LOCK = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, which is created when it is missing; the lock's file is removed at the end.

    The kernel releases the folder when the process that holds it ends.

    Raises:
        InputError: another process holds it, it cannot be written, or its file system has no locks.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    except OSError as error:
        if disk_full(error):
            raise
        raise InputError(f"{folder} cannot be written ({error.strerror}).") from error
    with ExitStack() as stack:
        try:
            handle = stack.enter_context(locked(path))
            if os.fstat(handle).st_nlink == 0:  # its holder finished, and removed it, a moment ago
                raise Taken
        except Taken as error:
            raise InputError(
                f"another process is working in {folder} now (a build, harvest or take-down)."
            ) from error
        except OSError as error:
            path.unlink(missing_ok=True)
            raise InputError(
                f"{folder}: its file system has no locks ({error.strerror}), without which two builds could "
                "mix; have it mounted with flock, or choose another folder."
            ) from error
        stack.callback(path.unlink, missing_ok=True)
        yield
