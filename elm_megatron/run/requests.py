"""What people ask of a running run by a file: `requests/save` and `requests/stop` in its folder.

    save    a checkpoint at the next step; training goes on
    stop    a checkpoint at the next step; the run ends and is not started again

A group that shares the run (`sharing.py`) may make such files: that needs no right in Slurm. Only the names
and the owners of the files are looked at. Rank 0 lists the folder at most once a second.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import time
from pathlib import Path

from elm_megatron.run.folder import RunFolder

FOLDER = "requests"
SAVE, STOP = "save", "stop"
LOOK_SECONDS = 1.0
ASKED_BY = "stop_asked_by"  # run.json


class Requests:
    """The requests to one run, for its rank 0.

    Args:
        run: its folder, bound to this attempt.
    """

    def __init__(self, run: RunFolder):
        self._run, self._folder = run, run.path / FOLDER
        self._next = 0.0

    def look(self) -> dict[str, str]:
        """Take what was asked since the last look.

        Returns:
            By request, the user who made it.
        """
        now = time.monotonic()
        if now < self._next:
            return {}
        self._next = now + LOOK_SECONDS
        found = _take(self._folder)
        if STOP in found:
            self._run.update(**{ASKED_BY: found[STOP]})
        return found


def clear(run: Path) -> None:
    """Forget what was asked of an earlier attempt."""
    _take(run / FOLDER)


def can_ask(run: Path) -> bool:
    """Whether this user may ask something of a run by a file."""
    return os.access(run / FOLDER, os.W_OK | os.X_OK)


def ask(run: Path, what: str) -> None:
    """Ask something of a run; to ask twice is to ask once."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(run / FOLDER / what, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))


def _take(folder: Path) -> dict[str, str]:
    """Remove the requests of a folder; returns by request who made it."""
    found: dict[str, str] = {}
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError:  # not shared, or a file system that hesitates
        return found
    for name in {SAVE, STOP} & names:
        path = folder / name
        with contextlib.suppress(OSError):
            owner = path.lstat().st_uid
            path.unlink()
            found[name] = _user(owner)
    return found


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
