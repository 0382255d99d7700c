"""Files: the one atomic write, the one lock and the one hash of the suite.

    write(path, text)                   whole or not at all: temporary name, fsync, rename
    with replacing(path) as file: …     the same for what is written in pieces
    with locked(path, seconds=10): …    one process at a time
    sha256(path)

No module of the suite does one of these by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

BLOCK = 1 << 22  # bytes read at a time
POLL_SECONDS = 0.002


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
