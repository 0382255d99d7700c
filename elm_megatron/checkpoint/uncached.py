"""Writing a large file past the page cache, hashed on the way.

A checkpoint is written while the ranks train. Through the page cache it would cost them more processor time
than its hash does (fresh pages, a copy, and write-back), and push the training data out of memory.

The rules of direct I/O, see open(2) under O_DIRECT: address, offset and length of each write are multiples of
the file system's block size. `UncachedFile` collects bytes in one aligned buffer and writes it when it is
full; the last write is padded to a block, and the file is then cut to its true length. Everything else works
as for any file. A file system that refuses direct I/O, when opening or at the first write, gets ordinary
writes: the file is the same. To take this module out, write with `open(path, "wb")` and hash beside it; only
speed changes (`python -m tests.bench.checkpoint`).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
from pathlib import Path
from typing import Self

import numpy as np

DIRECT = getattr(os, "O_DIRECT", 0)  # Linux has it
BUFFER = 1 << 23
ALIGNMENT = 4096  # of offsets, lengths and addresses in uncached writing, on every file system we know


class UncachedFile:
    """A new file that takes bytes in order; on leaving the context it is whole and on the disk.

    Where the file system has no uncached writing, or not for these blocks, the page cache serves.

    Attributes:
        bytes: how many were written.
        sha256: their hash, hexadecimal, once the file is closed.
    """

    def __init__(self, path: Path):
        self._descriptor = _opened(path)
        # Begins at a page, as uncached writing asks; numpy fills it without holding Python's lock.
        self._buffer = np.frombuffer(mmap.mmap(-1, BUFFER), np.uint8)
        self._filled = self.bytes = 0
        self._digest = hashlib.sha256()
        self.sha256 = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            os.close(self._descriptor)

    def write(self, block: bytes | memoryview) -> None:
        """Append a block of bytes.

        Raises:
            OSError: the file system refused it; the file is then not whole.
        """
        view = np.frombuffer(block, np.uint8)
        self.bytes += len(view)
        while len(view):
            part = view[: BUFFER - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == BUFFER:
                self._flush(BUFFER)

    def _flush(self, size: int) -> None:
        """Write the buffer's first `size` bytes, of which those filled count."""
        self._digest.update(self._buffer[: self._filled])
        rest = self._buffer[:size]
        while len(rest):
            rest = rest[self._write_some(rest) :]
        self._filled = 0

    def _write_some(self, block: np.ndarray) -> int:
        try:
            return os.write(self._descriptor, block)
        except OSError as error:
            flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
            if error.errno != errno.EINVAL or not flags & DIRECT:
                raise
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~DIRECT)
            return os.write(self._descriptor, block)

    def _finish(self) -> None:
        if self._filled:
            self._flush(-(-self._filled // ALIGNMENT) * ALIGNMENT)
        os.ftruncate(self._descriptor, self.bytes)
        os.fsync(self._descriptor)
        self.sha256 = self._digest.hexdigest()


def _opened(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return os.open(path, flags | DIRECT, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags, 0o666)
