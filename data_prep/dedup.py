"""Works and blocks that were there before: exact by hash, nearly the same by MinHash.

State per work: 8 bytes of exact hash and 128 × 2 bytes of MinHash; per block 8 + 32 × 2 bytes. A signature is
the minimum, under each of k multiply-shift hash functions, over the hashed 5-word shingles (Broder 1997), of
which the low 16 bits are kept (Li and König 2010: two different minima agree by accident once in 65,536).
Candidates share a band of four minima; the share of equal minima then estimates the Jaccard similarity.
Every candidate is compared with the earliest work that has the same band, never all with all.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from conf.schema.preprocess import DedupConfig

SHINGLE = 5
DOCUMENT_HASHES, BLOCK_HASHES, BAND = 128, 32, 4
WORD = re.compile(r"\w+")
_RANDOM = np.random.default_rng(20231009)
_FACTORS = _RANDOM.integers(1, 2**63, DOCUMENT_HASHES, np.uint64) * np.uint64(2) + np.uint64(1)
_OFFSETS = _RANDOM.integers(0, 2**63, DOCUMENT_HASHES, np.uint64)
_POWERS = _RANDOM.integers(1, 2**63, SHINGLE, np.uint64) * np.uint64(2) + np.uint64(1)
DOCUMENT_RECORD = np.dtype([("exact", "<u8"), ("minima", "<u2", DOCUMENT_HASHES)])
BLOCK_RECORD = np.dtype([("exact", "<u8"), ("minima", "<u2", BLOCK_HASHES)])


@dataclass(frozen=True)
class Fingerprints:
    """One `DOCUMENT_RECORD` and one `BLOCK_RECORD` per block, as bytes."""

    document: bytes
    blocks: bytes


@dataclass
class Decisions:
    """Works to drop with their reason, and the numbers of blocks to drop in the works that stay."""

    documents: dict[int, str] = field(default_factory=dict)
    blocks: dict[int, set[int]] = field(default_factory=dict)


def fingerprints(blocks: list[str], config: DedupConfig) -> Fingerprints:
    """Hash a work's blocks; case, punctuation and line breaks make no difference."""
    memory: dict[str, int] = {}
    hashed = [_hash_words(WORD.findall(block.lower()), memory) for block in blocks]
    document = np.zeros(1, DOCUMENT_RECORD)
    records = np.zeros(len(blocks), BLOCK_RECORD)
    words = np.concatenate(hashed) if hashed else np.zeros(0, np.uint64)
    document["exact"] = _exact(words)
    if config.near or config.taken_down:
        document["minima"] = _minima(words, DOCUMENT_HASHES)
    if config.blocks:
        for record, block in zip(records, hashed, strict=True):
            record["exact"] = _exact(block)
            record["minima"] = _minima(block, BLOCK_HASHES)
    return Fingerprints(document.tobytes(), records.tobytes())


def _hash_words(words: list[str], memory: dict[str, int]) -> np.ndarray:
    for word in set(words).difference(memory):
        memory[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    return np.fromiter(map(memory.__getitem__, words), np.uint64, len(words))


def _exact(words: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(words.tobytes(), digest_size=8).digest(), "little")


def _minima(words: np.ndarray, count: int) -> np.ndarray:
    """uint16[count] minima of a text's shingles; a text shorter than a shingle is one shingle."""
    padded = words if len(words) >= SHINGLE else np.pad(words, (0, SHINGLE - len(words)))
    size = len(padded) - SHINGLE + 1
    shingles = np.zeros(size, np.uint64)
    for place in range(SHINGLE):
        shingles += padded[place : place + size] * _POWERS[place]
    shingles ^= shingles >> np.uint64(29)
    least = np.full(count, np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, size, 512):  # so many that the products stay in the processor's cache
        part = shingles[start : start + 512, None] * _FACTORS[:count]
        part += _OFFSETS[:count]
        np.minimum(least, part.min(axis=0), out=least)
    return ((least >> np.uint64(16)) & np.uint64(0xFFFF)).astype(np.uint16)


def decide(
    prints: Iterator[Fingerprints], config: DedupConfig, folder: Path, left_out: dict[int, str] | None = None
) -> Decisions:
    """Find what stood in an earlier work; of several the first in canonical order stays.

    Args:
        prints: of all works in canonical order, read once.
        config: which rules hold, the thresholds, and the memory above which records are kept on disk.
        folder: where a temporary file may be made.
        left_out: reasons of works that are dropped already; nothing repeats them.
    """
    decisions = Decisions()
    decisions.documents.update(left_out or {})
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        documents, blocks = Path(scratch) / "documents", Path(scratch) / "blocks"
        sizes = []
        with documents.open("wb") as one, blocks.open("wb") as many:
            for item in prints:
                one.write(item.document)
                many.write(item.blocks)
                sizes.append(len(item.blocks) // BLOCK_RECORD.itemsize)
        records = _records(documents, DOCUMENT_RECORD, config)
        everything = np.ones(len(records), bool)
        everything[list(decisions.documents)] = False
        if config.exact:
            for index in _repeats(records, everything, None, 0, config):
                decisions.documents[index] = "exact_duplicate"
        if config.near:
            for index in _repeats(records, everything, DOCUMENT_HASHES, config.threshold, config):
                decisions.documents.setdefault(index, "near_duplicate")
        if config.blocks:
            owner = np.repeat(np.arange(len(sizes)), sizes)
            first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
            stays = np.array([index not in decisions.documents for index in range(len(sizes))], bool)
            records = _records(blocks, BLOCK_RECORD, config)
            for index in _repeats(records, stays[owner], BLOCK_HASHES, config.block_threshold, config):
                decisions.blocks.setdefault(int(owner[index]), set()).add(int(index - first[owner[index]]))
            for index in [item for item, gone in decisions.blocks.items() if len(gone) == sizes[item]]:
                decisions.documents[index] = "duplicate_blocks"
                del decisions.blocks[index]
    return decisions


def _records(path: Path, dtype: np.dtype, config: DedupConfig) -> np.ndarray:
    """A record file in memory, or mapped from disk when it is larger than half the bound."""
    size = path.stat().st_size
    if size == 0:
        return np.zeros(0, dtype)
    if size > config.memory_mb * 5e5:
        return np.memmap(path, dtype, "r")
    return np.fromfile(path, dtype)


def _repeats(
    records: np.ndarray, use: np.ndarray, hashes: int | None, threshold: float, config: DedupConfig
) -> list[int]:
    """Indices of records that repeat an earlier one.

    Args:
        records: all records, in memory or mapped.
        use: bool[N], the records that count.
        hashes: number of minima, or None to compare the exact hashes only.
        threshold: least share of equal minima.
        config: for the bound on memory, which sets the number of passes.
    """
    found: set[int] = set()
    # 40 bytes a record for keys, indices and the sort; what does not fit at once goes in several passes.
    passes = max(1, -(-len(records) * 40 // int(config.memory_mb * 5e5)))
    for band in range(1 if hashes is None else hashes // BAND):
        for turn in range(passes):
            indices, keys = _keys(records, use, None if hashes is None else band, turn, passes)
            order = np.argsort(keys, kind="stable")
            indices, keys = indices[order], keys[order]
            starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else []
            group = np.repeat(starts, np.diff(np.append(starts, len(keys)))) if len(keys) else []
            later = np.flatnonzero(np.arange(len(keys)) != group)
            for start in range(0, len(later), 65536):
                part = later[start : start + 65536]
                this, earliest = indices[part], indices[np.asarray(group)[part]]
                if hashes is None:
                    found.update(this.tolist())
                    continue
                equal = (records["minima"][this] == records["minima"][earliest]).mean(axis=1)
                found.update(this[equal >= threshold].tolist())
    return sorted(found)


def _keys(
    records: np.ndarray, use: np.ndarray, band: int | None, turn: int, passes: int
) -> tuple[np.ndarray, np.ndarray]:
    """(indices, keys) of the records whose key falls into this pass; the key is the hash or four minima."""
    indices, keys = [], []
    for start in range(0, len(records), 65536):
        part = records[start : start + 65536]
        if band is None:
            key = np.ascontiguousarray(part["exact"])
        else:
            rows = np.ascontiguousarray(part["minima"][:, band * BAND : (band + 1) * BAND])
            key = rows.view(np.uint64).ravel()
        chosen = use[start : start + 65536] & (key % np.uint64(passes) == turn)
        indices.append(np.flatnonzero(chosen) + start)
        keys.append(key[chosen])
    empty = np.zeros(0, np.int64)
    return np.concatenate([empty, *indices]), np.concatenate([empty.astype(np.uint64), *keys])
