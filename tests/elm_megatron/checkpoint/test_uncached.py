"""Files written past the page cache: the same bytes and hash as ever, on every file system."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
from pathlib import Path

import pytest

from elm_megatron.checkpoint import uncached
from elm_megatron.checkpoint.uncached import ALIGNMENT, BUFFER, UncachedFile


@pytest.mark.parametrize("size", [0, 1, ALIGNMENT, BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER + 12_345])
def test_bytes_and_hash(tmp_path: Path, size: int):
    """Whatever the pieces and however the end lies to the blocks; an older, longer file leaves no trace."""
    data = random.Random(size).randbytes(size)
    path = tmp_path / "file"
    path.write_bytes(b"x" * (3 * BUFFER))
    with UncachedFile(path) as file:
        for start in range(0, size, 3_000_001):
            file.write(memoryview(data)[start : start + 3_000_001])
        file.write(b"")
    assert path.read_bytes() == data
    assert (file.bytes, file.sha256) == (size, hashlib.sha256(data).hexdigest())


def test_where_there_is_no_uncached_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The page cache serves."""
    real, flags = os.open, []

    def refusing(path: object, flag: int, mode: int = 0o777) -> int:
        flags.append(flag)
        if flag & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no O_DIRECT here")
        return real(path, flag, mode)

    monkeypatch.setattr(uncached.os, "open", refusing)
    with UncachedFile(tmp_path / "file") as file:
        file.write(b"abc")
    assert (tmp_path / "file").read_bytes() == b"abc"
    assert [bool(flag & os.O_DIRECT) for flag in flags] == [True, False]


def test_blocks_that_are_refused_go_through_the_page_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Some file systems open a file for uncached writing and take larger blocks only."""
    real = os.write

    def picky(fd: int, block: object) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, block)

    monkeypatch.setattr(uncached.os, "write", picky)
    with UncachedFile(tmp_path / "file") as file:
        file.write(b"abc")
    assert (tmp_path / "file").read_bytes() == b"abc"


def test_short_writes_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A short write goes on where it stopped; what the disk refuses is raised and has no hash."""
    real = os.write
    monkeypatch.setattr(uncached.os, "write", lambda fd, block: real(fd, block[:ALIGNMENT]))
    data = os.urandom(5 * ALIGNMENT + 7)
    with UncachedFile(tmp_path / "file") as file:
        file.write(data)
    assert (tmp_path / "file").read_bytes() == data

    def full(fd: int, block: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(uncached.os, "write", full)
    with pytest.raises(OSError, match="No space left"), UncachedFile(tmp_path / "file") as file:
        file.write(data)
    assert file.sha256 == ""
