"""The folder in which the tracker keeps its picture of the queue and its history.

`~/.cache/elm-queue`, or what an admin names in `ELM_QUEUE_CACHE` for a group of users; whoever can write
there is believed. A folder that cannot be made, written or locked costs speed and never an answer: the next
best place is used, or none, and one line on stderr says so.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

from data_prep import files

NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "cifs", "smb", "ceph", "fuse", "9p", "afs", "panfs", "orangefs")
LOCK_SECONDS = 90.0


def cluster_key() -> str:
    """What tells clusters apart: their slurm.conf, and the clusters that the environment chooses."""
    chosen = f"{os.environ.get('SLURM_CONF', '')}\n{os.environ.get('SLURM_CLUSTERS', '')}"
    return sha256(chosen.encode()).hexdigest()[:12]


def folder() -> Path | None:
    """The cluster's folder, made when it is missing; None where no place can be written."""
    shared = os.environ.get("ELM_QUEUE_CACHE")
    wanted = Path(shared) if shared else _home("XDG_CACHE_HOME", ".cache")
    return _made(wanted and (wanted if shared else wanted / "elm-queue") / cluster_key())


def data_folder() -> Path | None:
    """The folder of the history: beside a shared picture, else in the user's data folder."""
    if os.environ.get("ELM_QUEUE_CACHE"):
        return folder()
    home = _home("XDG_DATA_HOME", ".local/share")
    return _made(home and home / "elm-queue" / cluster_key())


def file_mode(place: Path) -> int:
    """Permissions of a file there: the owner's, and the group's in a folder that a group may write."""
    return 0o660 if place.stat().st_mode & stat.S_IWGRP else 0o600


def keep(path: Path, content: str | bytes) -> None:
    """Write a file that may be lost; where it cannot be written, one line says so."""
    try:
        with files.replacing(path, durable=False) as file:
            os.fchmod(file.fileno(), file_mode(path.parent))
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        note(f"{path} cannot be written ({error.strerror}); every command asks Slurm itself")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time, where the file system has locks and none is held for longer than a minute."""
    with ExitStack() as held:
        with suppress(OSError, files.Taken):
            descriptor = held.enter_context(files.locked(path, LOCK_SECONDS))
            os.fchmod(descriptor, file_mode(path.parent))
        yield


def on_network(path: Path) -> bool:
    """Whether a path is on a network file system, by the longest mount point above it."""
    best, kind = "", ""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
        real = str(path.resolve())
    except OSError:
        return False
    for line in mounts:
        words = line.split(" ")
        if len(words) < 3:
            continue
        point = words[1].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, words[2]
    return kind.startswith(NETWORK)


@cache
def note(sentence: str) -> None:
    """Say something on stderr, once."""
    print(f"elm-queue: {sentence}", file=sys.stderr)


def _home(variable: str, inside: str) -> Path | None:
    """The folder that a variable names, else one in the home folder; None for a user without a home."""
    named = os.environ.get(variable)
    try:
        return Path(named) if named else Path.home() / inside
    except (RuntimeError, KeyError):
        return None


def _made(wanted: Path | None) -> Path | None:
    """The folder, else one in the temporary folder that is the user's alone, else None."""
    problem = "this user has no home folder"
    if wanted is not None:
        try:
            group = wanted.parent.is_dir() and wanted.parent.stat().st_mode & stat.S_IWGRP
            wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
            if group and wanted.stat().st_uid == os.geteuid():
                wanted.chmod(0o2770)
            if os.access(wanted, os.W_OK | os.X_OK):
                return wanted
            problem = f"{wanted} is not writable"
        except OSError as error:
            problem = f"{wanted} cannot be made ({error.strerror})"
    # `tempfile` costs each list five milliseconds.
    spare = Path(os.environ.get("TMPDIR") or "/tmp") / f"elm-queue-{os.geteuid()}"
    try:
        for place in (spare, spare / cluster_key()):
            place.mkdir(mode=0o700, exist_ok=True)
            found = place.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise PermissionError(13, "it belongs to somebody else", str(place))
    except OSError as error:
        note(f"{problem}, and {spare} neither ({error.strerror}); every command asks Slurm itself")
        return None
    note(f"{problem}; {spare} is used instead")
    return spare / cluster_key()
