"""Megatron's indexed dataset format: the ``.idx`` beside a ``.bin``, and files written in place.

``.idx``: magic, u64 version, u8 dtype code, u64 sequences N, u64 document indices D, then int32[N] lengths,
int64[N] byte pointers, int64[D] document indices (megatron.core.datasets.indexed_dataset). Here every
document is one sequence, so D = N + 1 and the file is 42 + 20·N bytes.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
CODES = {"uint16": 8, "int32": 4}
BLOCK = 1 << 22


def dtype_for(vocab_size: int) -> np.dtype:
    """The smallest type of the format that holds every id below `vocab_size`: uint16 or int32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.int32)


def index_bytes(lengths: np.ndarray, dtype: np.dtype) -> bytes:
    """The whole ``.idx``.

    Args:
        lengths: int32[N], tokens of each document.
        dtype: type of the ids in the ``.bin``.
    """
    count = len(lengths)
    pointers = np.zeros(count, np.int64)
    np.cumsum(lengths[:-1].astype(np.int64) * dtype.itemsize, out=pointers[1:])
    header = HEADER.pack(MAGIC, 1, CODES[dtype.name], count, count + 1)
    documents = np.arange(count + 1, dtype=np.int64)
    return b"".join([header, lengths.astype("<i4").tobytes(), pointers.tobytes(), documents.tobytes()])


@dataclass(frozen=True)
class Index:
    """A parsed ``.idx``: lengths int32[N], pointers int64[N] in bytes, documents int64[D]."""

    dtype: np.dtype
    lengths: np.ndarray
    pointers: np.ndarray
    documents: np.ndarray


def read_index(path: Path) -> Index:
    """Parse an ``.idx``.

    Raises:
        ValueError: naming the byte at which it stops being one.
    """
    data = path.read_bytes()
    if len(data) < HEADER.size:
        raise ValueError(f"{path}: byte {len(data)}: the file ends inside the header of {HEADER.size} bytes")
    magic, version, code, count, documents = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ValueError(f"{path}: byte 0: {magic!r} is not the magic of an indexed dataset")
    if version != 1:
        raise ValueError(f"{path}: byte 9: version {version}, known is 1")
    names = {value: name for name, value in CODES.items()}
    if code not in names:
        raise ValueError(f"{path}: byte 17: dtype code {code}, known are {sorted(names)}")
    expected = HEADER.size + 12 * count + 8 * documents
    if len(data) != expected:
        raise ValueError(f"{path}: {len(data)} bytes, but its header asks for {expected}")
    start = HEADER.size
    return Index(
        np.dtype(names[code]),
        np.frombuffer(data, "<i4", count, start),
        np.frombuffer(data, "<i8", count, start + 4 * count),
        np.frombuffer(data, "<i8", documents, start + 12 * count),
    )


class InPlace:
    """A file several ranks write at their own offsets."""

    def __init__(self, path: Path) -> None:
        """Open for writing in place; the file is made when it is not there."""
        self.path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes, offset: int) -> None:
        """Write all of `data` at a byte offset."""
        view = memoryview(data)
        while view:
            done = os.pwrite(self._handle, view, offset)
            view, offset = view[done:], offset + done

    def truncate(self, size: int) -> None:
        """Cut the file to a size in bytes."""
        os.ftruncate(self._handle, size)

    def close(self, sync: bool = False) -> None:
        """Close, and with `sync` wait until the bytes are on the disk."""
        if sync:
            os.fsync(self._handle)
        os.close(self._handle)


def sha256_and_counts(path: Path, dtype: np.dtype, vocab_size: int) -> tuple[str, np.ndarray]:
    """One pass over a ``.bin``: its sha256 and int64[vocab_size] occurrences of each id."""
    digest, counts = hashlib.sha256(), np.zeros(vocab_size, np.int64)
    with path.open("rb") as file:
        while data := file.read(BLOCK):
            digest.update(data)
            counts += np.bincount(np.frombuffer(data, dtype), minlength=vocab_size)
    return digest.hexdigest(), counts


def entropy(counts: np.ndarray) -> float:
    """Entropy in nats of the distribution given by counts; 0 for none."""
    total = counts.sum()
    if total == 0:
        return 0.0
    shares = counts[counts > 0] / total
    return float(-(shares * np.log(shares)).sum())
