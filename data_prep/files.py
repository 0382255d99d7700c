"""Files: the one atomic write, the one lock and the one hash of the suite.

    write(path, text)                   whole or not at all: temporary name, fsync, rename
    with replacing(path) as file: …     the same for what is written in pieces
    with locked(path, seconds=10): …    one process at a time
    sha256(path)
    replace_folder(new, final)          a whole folder takes the place of another
    reading(path, function)             a file system that hesitates is asked again
    with full_disk_named(folder, …): …  a full disk is said in one sentence

No module of the suite does one of these by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from conf.errors import InputError, disk_full

BLOCK = 1 << 22  # bytes read at a time
POLL_SECONDS = 0.002
READ_PAUSES = (0.2, 1.0, 3.0)  # seconds between attempts to read
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
OLD = ".old.tmp"  # ending of a folder that is being replaced
T = TypeVar("T")


def write(path: Path, data: str | bytes, mode: int = 0o666, durable: bool = True) -> None:
    """Write a file whole or not at all; text is UTF-8. For the other arguments see `replacing`."""
    with replacing(path, mode, durable) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o666, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file in the folder of `path`; it takes the place of `path` when the block ends well.

    After an error the temporary file is removed and `path` is unchanged.

    Args:
        path: the file.
        mode: permissions of the new file, less the process's umask.
        durable: the bytes are on the disk (fsync) before the rename; False for a cache, which may be lost.
    """
    temporary = temporary_of(path)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def temporary_of(path: Path) -> Path:
    """The temporary name of a file, in its folder; only this process uses it."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def sha256(path: Path) -> str:
    """The hash of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(BLOCK):
            digest.update(data)
    return digest.hexdigest()


class Taken(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path, seconds: float = 0.0) -> Iterator[int]:
    """Hold the lock of a file, which is created when it is missing, or of an existing folder.

    The kernel releases the lock when the last process that has the descriptor open ends. A child process that
    inherits the descriptor keeps the lock.

    Args:
        path: the file or folder.
        seconds: how long to wait for another holder.

    Yields:
        The open descriptor.

    Raises:
        Taken: another process held the lock for all of that time.
        OSError: the file cannot be opened, or its file system has no locks.
    """
    is_folder = path.is_dir()
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(descriptor, path, time.monotonic() + seconds)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, until: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise Taken(f"another process holds {path}") from None
            time.sleep(POLL_SECONDS)


class Unreadable(InputError):
    """A file or folder exists and cannot be read now; its content is not known to be damaged."""


def reading(path: Path, function: Callable[[], T]) -> T:
    """What a function returns that reads a file or folder; called again after an error of the file system.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such file; not tried again.
        Unreadable: every attempt failed (EIO, ESTALE, EACCES, …).
    """
    for pause in (*READ_PAUSES, None):
        try:
            return function()
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            if pause is None:
                raise Unreadable(
                    f"{path}: cannot be read ({error.strerror or error}), {len(READ_PAUSES) + 1} times in a "
                    "row. It is not taken for damaged: give the command again when the file system answers."
                ) from error
            time.sleep(pause)
    raise AssertionError("unreachable")


@contextlib.contextmanager
def full_disk_named(folder: Path, needed: int, what: str, note: str = "") -> Iterator[None]:
    """Turn the error of a full disk, or of a used-up quota, into one sentence.

    Args:
        folder: where is written.
        needed: bytes.
        what: is written, for the sentence.
        note: what else the reader wants to know; a clause.

    Raises:
        InputError: the disk is full. Other errors pass.
    """
    try:
        yield
    except OSError as error:
        if not disk_full(error):
            raise
        full = "the disk quota is used up" if error.errno == errno.EDQUOT else "the disk is full"
        try:
            free = f", {shutil.disk_usage(folder).free:,} are free"
        except OSError:
            free = ""
        raise InputError(
            f"{folder}: {full}: {what} needs {needed:,} bytes{free}{note and '; ' + note}. Make room and "
            "give the command again."
        ) from error


def sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk (fsync)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(new: Path, final: Path) -> None:
    """Give a finished folder its name; what has the name is replaced, and removed at the end.

    At every moment one whole version exists. Linux exchanges the two names in one step. On a file system that
    cannot, the old version is renamed first, and `finish_replacements` gives it its name back when this
    process was killed before the new one had it.

    Args:
        new: in the same folder as `final`.
    """
    old = final.with_name(f".{final.name}{OLD}")
    if not os.path.lexists(final):
        new.rename(final)
        sync_folder(final.parent)
        return
    _remove(old)
    if _exchange(new, final):
        sync_folder(final.parent)
        new.rename(old)
    else:
        final.rename(old)
        new.rename(final)
        sync_folder(final.parent)
    _remove(old)


def finish_replacements(folder: Path) -> None:
    """Give back its name to what a killed `replace_folder` had renamed in a folder, where no other has it."""
    for old in folder.glob(f".*{OLD}"):
        final = old.with_name(old.name.removeprefix(".").removesuffix(OLD))
        if not os.path.lexists(final):
            old.rename(final)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step, renameat2(2); False where the system or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    names = os.fsencode(one), os.fsencode(other)
    return renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0
