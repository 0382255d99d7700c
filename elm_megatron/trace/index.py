"""The index of a dataset's training works: which of them hold a passage of an answer.

    trace/index.json            what it was made from, and its shards
    trace/suffixes-0000.bin     uint32, the sorted suffixes of one shard of the `.bin`
    trace/works.bin             uint64, a hash of each work's id, in the order of the `.bin`

That is 4 bytes a token and 8 a work. The ids themselves stay in the dataset's `.bin`. A shard is sorted in
memory and written before the next one is read. The index holds no text, title or id. Which works exist, and
what they are called, `documents.parquet` says each time the index is opened: a work that was taken down is
not there, and its suffixes are then taken out of the index.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conf.errors import InputError
from data_prep import files, tombstones
from data_prep.indexed import read_index
from data_prep.manifest import Manifest
from data_prep.tokenizer import Tokenizer
from elm_megatron.sources import tokenizer_files
from elm_megatron.trace.suffixes import CHUNK, ORDER_DTYPE, SHARD_BYTES, Suffixes, sort

FILE, WORKS = "index.json", "works.bin"
DOCUMENTS = "documents.parquet"
SCHEMA = 1
HASH_DTYPE = np.dtype("<u8")
DETAILS = ("title", "source", "year", "licence")
Report = Callable[[int, int], None]  # told (done, of how many)


@dataclass(frozen=True)
class Work:
    """A training work, as `documents.parquet` describes it; None where that has no such column."""

    id: str
    title: str | None = None
    source: str | None = None
    year: int | None = None
    licence: str | None = None


class Outdated(InputError):
    """There is no index, or it is of other works than the dataset has now."""


class Index:
    """An opened index.

    Args:
        folder: of the index.
        manifest: of the dataset.
        record: index.json.

    Attributes:
        gone: numbers of the works that are in the `.bin` and not in the dataset any more, in order.
    """

    def __init__(self, folder: Path, manifest: Manifest, record: dict[str, Any]):
        self.folder, self.manifest, self.record = folder, manifest, record
        self._ids = _ids(manifest)
        self._starts = _starts(manifest)
        self._works = _works(manifest, np.fromfile(folder / WORKS, HASH_DTYPE))
        self.gone = [number for number, work in enumerate(self._works) if work is None]
        self.shards = []
        for shard in record["shards"]:
            path = folder / shard["file"]
            if path.stat().st_size != shard["suffixes"] * ORDER_DTYPE.itemsize:
                raise Outdated(f"{path}: has another size than {folder / FILE} says.")
            order = np.memmap(path, ORDER_DTYPE, "r") if shard["suffixes"] else np.zeros(0, ORDER_DTYPE)
            self.shards.append(Suffixes(self._ids, shard["first_token"], shard["tokens"], order))

    @classmethod
    def open(cls, folder: Path, manifest: Manifest) -> Index:
        """Open an index.

        Raises:
            Outdated: there is none, it is damaged, or its dataset was built again.
            InputError: the dataset cannot be read.
        """
        try:
            record = json.loads((folder / FILE).read_text(encoding="utf-8"))
            known = record["schema"] == SCHEMA and record["bin_sha256"] == manifest.splits["train"].bin.sha256
            if not known:
                raise Outdated(f"{folder}: is not of the dataset that is in {manifest.folder} now.")
            manifest.check_files()
            return cls(folder, manifest, record)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Outdated(f"{folder}: is no index ({error}).") from error

    @property
    def is_current(self) -> bool:
        """Whether no suffix of a work that is gone is in it."""
        return self.gone == self.record["gone"]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that wrote the dataset.

        Raises:
            InputError: it is gone, or another one is there.
        """
        return tokenizer_files.of_dataset(self.manifest).load()

    def spans(self, answer: np.ndarray, least: int) -> list[tuple[int, int]]:
        """The passages of an answer that are in training works, each as long as it can be, by their start.

        Args:
            answer: ids, of any integer type; no passage goes beyond an id that ends documents.
            least: tokens of a passage at least.

        Returns:
            (start, stop) in tokens. None is inside another; two may overlap.
        """
        answer = answer.astype(self._ids.dtype)
        length = np.zeros(len(answer), np.int64)
        for shard in self.shards:
            np.maximum(length, shard.longest(answer, 2 * least), out=length)
        ends = np.append(np.flatnonzero(answer == self.manifest.tokenizer.eos_id), len(answer))
        numbers = np.arange(len(answer))
        stops = numbers + np.minimum(length, ends[np.searchsorted(ends, numbers)] - numbers)
        before = np.concatenate([[-1], stops[:-1]])
        starts = np.flatnonzero((stops - numbers >= least) & (stops > before))
        return [(int(start), int(stops[start])) for start in starts]

    def works_of(self, passage: np.ndarray) -> tuple[list[Work], int]:
        """The works that hold a passage, in the order of the dataset, and how often it is in them."""
        passage = passage.astype(self._ids.dtype)
        places = np.concatenate([shard.places(passage) for shard in self.shards] or [np.zeros(0, np.int64)])
        numbers = np.unique(np.searchsorted(self._starts, places, side="right") - 1)
        found = (self._works[number] for number in numbers)
        return [work for work in found if work is not None], len(places)


def build(folder: Path, manifest: Manifest, report: Report) -> None:
    """Index a dataset's training split.

    Args:
        folder: of the index; it takes the place of one that is there.
        report: told the tokens done.

    Raises:
        InputError: the dataset is damaged or must be built again, or pydivsufsort is not installed.
    """
    ids, starts, split = _ids(manifest), _starts(manifest), manifest.splits["train"]
    path = manifest.prefix("train").with_name(f"{split.prefix}.bin")
    if files.sha256(path) != split.bin.sha256:
        raise InputError(f"{path}: its sha256 is not the manifest's; look with python -m data_prep.verify.")
    hashes = np.array([_hash(identifier) for identifier, _ in _rows(manifest)], HASH_DTYPE)
    if len(hashes) != split.documents:
        why = manifest.stale or "documents.parquet has other works than the training split"
        raise InputError(f"{manifest.folder}: {why}; build it again.")
    with _replacing(folder, len(ids) * ORDER_DTYPE.itemsize) as new:
        shards = []
        report(0, len(ids))
        for number, (first, tokens) in enumerate(_shards(starts, len(ids), ids.dtype.itemsize)):
            name = f"suffixes-{number:04}.bin"
            sort(ids[first : first + tokens], new / name)
            shards.append({"file": name, "first_token": first, "tokens": tokens, "suffixes": tokens})
            report(first + tokens, len(ids))
        hashes.tofile(new / WORKS)
        _write_record(new, {**_facts(manifest), "gone": [], "shards": shards})


def without_gone(index: Index, report: Report) -> None:
    """Take the suffixes of works that are gone out of an index, and the hashes of their ids."""
    starts = _starts(index.manifest)
    is_gone = np.zeros(len(starts), bool)
    is_gone[index.gone] = True
    total, done = sum(len(shard.order) for shard in index.shards), 0
    with _replacing(index.folder, total * ORDER_DTYPE.itemsize) as new:
        shards = []
        for shard, facts in zip(index.shards, index.record["shards"], strict=True):
            with (new / facts["file"]).open("wb") as file:
                for start in range(0, len(shard.order), CHUNK):
                    part = shard.order[start : start + CHUNK]
                    numbers = np.searchsorted(starts, part.astype(np.int64) + shard.first, side="right") - 1
                    file.write(part[~is_gone[numbers]].tobytes())
                    done += len(part)
                    report(done, total)
                shards.append({**facts, "suffixes": file.tell() // ORDER_DTYPE.itemsize})
        hashes = np.fromfile(index.folder / WORKS, HASH_DTYPE)
        hashes[index.gone] = 0
        hashes.tofile(new / WORKS)
        _write_record(new, {**_facts(index.manifest), "gone": index.gone, "shards": shards})


def _facts(manifest: Manifest) -> dict[str, Any]:
    split = manifest.splits["train"]
    return {
        "schema": SCHEMA,
        "bin_sha256": split.bin.sha256,
        "tokenizer_sha256": manifest.tokenizer.sha256,
        "documents": split.documents,
        "tokens": split.tokens,
    }


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    files.write(folder / FILE, json.dumps(record, indent=1) + "\n")


@contextlib.contextmanager
def _replacing(folder: Path, needed: int) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when the block ends well.

    Args:
        needed: bytes, for the sentence about a full disk.

    Raises:
        InputError: another process makes an index there, or the disk is full.
    """
    new = files.temporary_of(folder)
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with files.locked(folder.parent), files.full_disk_named(folder.parent, needed, "the index"):
            for left in folder.parent.glob(f".{folder.name}.*.tmp"):  # of commands that were killed
                shutil.rmtree(left, ignore_errors=True)
            try:
                new.mkdir(mode=0o700)
                yield new
                files.replace_folder(new, folder)
            finally:
                shutil.rmtree(new, ignore_errors=True)
    except files.Taken as error:
        raise InputError(f"{folder}: another process is making this index now.") from error


def _shards(starts: np.ndarray, tokens: int, itemsize: int) -> Iterator[tuple[int, int]]:
    """(first token, tokens) of each shard: whole works, as many as `SHARD_BYTES` hold, at least one."""
    bounds = np.append(starts, tokens)
    first = 0
    while first < len(starts):
        last = int(np.searchsorted(bounds, bounds[first] + SHARD_BYTES // itemsize, side="right")) - 1
        last = max(last, first + 1)
        yield int(bounds[first]), int(bounds[last] - bounds[first])
        first = last


def _ids(manifest: Manifest) -> np.ndarray:
    """The training split's ids, as they are on the disk."""
    path = manifest.prefix("train").with_name(f"{manifest.splits['train'].prefix}.bin")
    return np.memmap(path, np.dtype(manifest.dtype), "r")


def _starts(manifest: Manifest) -> np.ndarray:
    """Where each training work begins, in tokens, int64.

    Raises:
        InputError: the `.idx` is damaged.
    """
    path = manifest.prefix("train").with_name(f"{manifest.splits['train'].prefix}.idx")
    try:
        return read_index(path).pointers // np.dtype(manifest.dtype).itemsize
    except ValueError as error:
        raise InputError(f"{error}.") from error


def _rows(manifest: Manifest) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, row without the text) of the training works, in the order of the `.bin`.

    Raises:
        InputError: the dataset has no documents.
    """
    import pyarrow.parquet as pq

    path = manifest.folder / DOCUMENTS
    if not path.is_file():
        raise InputError(f"{path} does not exist: it has the ids of the works that an answer is traced to.")
    file = pq.ParquetFile(path)
    columns = [name for name in ("id", "split", "sha256", *DETAILS) if name in file.schema_arrow.names]
    for batch in file.iter_batches(batch_size=4096, columns=columns):
        for row in batch.to_pylist():
            if row["split"] in ("train", "both"):
                yield row["id"], row


def _works(manifest: Manifest, hashes: np.ndarray) -> list[Work | None]:
    """The work of each hash; None for one that is not in the dataset any more, or has a tombstone."""
    stones = tombstones.read(manifest.folder)
    taken_down = {entry.get(key) for entry in stones for key in ("id", "sha256")} - {None}
    known = {
        _hash(identifier): Work(identifier, **{key: row.get(key) for key in DETAILS})
        for identifier, row in _rows(manifest)
        if taken_down.isdisjoint((identifier, row.get("sha256")))
    }
    return [known.get(number) for number in hashes.tolist()]


def _hash(identifier: str) -> int:
    return int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:8], "little")
