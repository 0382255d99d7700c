"""Raw files to parts of ``documents.parquet``, cleaned, on any number of ranks.

The canonical order of the works is cut into chunks by input bytes. Ranks take chunks in turn; each chunk
becomes a part file, which is also the unit of restart; `merge` makes one file of them. So the result does not
depend on the number of ranks.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from conf.errors import InputError
from conf.schema.preprocess import PreprocessConfig
from data_prep import raw
from data_prep.clean import BLOCK_BREAK, clean
from data_prep.comm import Alone
from data_prep.dedup import fingerprints
from data_prep.extract import blocks_of
from data_prep.raw import Unreadable, Work
from data_prep.tombstones import Tombstones

DOCUMENTS, DROPPED = "documents.parquet", "dropped.parquet"
CHUNK_WORKS = 1000  # works of a chunk at most, so that many small files are restarted in steps too
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("title", pa.string()),
        ("year", pa.int32()),
        ("language", pa.string()),
        ("licence", pa.string()),
        ("text", pa.large_string()),
        ("sha256", pa.string()),
        ("split", pa.string()),
    ]
)
PART_SCHEMA = pa.schema([*list(SCHEMA)[:-1], ("signature", pa.binary()), ("blocks", pa.binary())])
DROPPED_SCHEMA = pa.schema([("id", pa.string()), ("stage", pa.string()), ("reason", pa.string())])


@dataclass
class Account:
    """What happened to works and blocks; `check` asserts that nothing is lost."""

    works_in: int = 0
    works_out: int = 0
    works_dropped: Counter[str] = field(default_factory=Counter)
    blocks_in: int = 0
    blocks_out: int = 0
    blocks_dropped: Counter[str] = field(default_factory=Counter)
    redactions: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)

    def check(self) -> None:
        """Assert in = out + dropped, for works and for blocks."""
        for name in ("works", "blocks"):
            came, went = getattr(self, f"{name}_in"), getattr(self, f"{name}_out")
            dropped = sum(getattr(self, f"{name}_dropped").values())
            if came != went + dropped:
                raise AssertionError(f"{name}: {came} in, but {went} out and {dropped} dropped")


def chunks(works: list[Work], chunk_bytes: float) -> list[list[Work]]:
    """Consecutive works with at least `chunk_bytes` together, or `CHUNK_WORKS` of them."""
    result: list[list[Work]] = []
    size = chunk_bytes
    for work in works:
        if size >= chunk_bytes or len(result[-1]) >= CHUNK_WORKS:
            result.append([])
            size = 0
        result[-1].append(work)
        size += work.size
    return result


def make_parts(
    works: list[Work], config: PreprocessConfig, tombstones: Tombstones, folder: Path, comm: Alone
) -> Iterator[int]:
    """Read and clean this rank's chunks; a chunk whose part is there is not read again.

    Args:
        works: the same on every rank, in canonical order.
        config: the build's settings.
        tombstones: of works that were taken down.
        folder: where parts go.
        comm: the ranks.

    Yields:
        Works done, after each chunk of this rank.

    Raises:
        InputError: on every rank, when a work cannot be read and ``corpus.quarantine`` is false.
    """
    error = None
    for number, chunk in enumerate(chunks(works, config.preprocess.chunk_mb * raw.MEGABYTE)):
        if number % comm.size != comm.rank:
            continue
        if not (folder / f"{number:06d}.json").exists():
            try:
                _make_part(chunk, config, tombstones, folder / f"{number:06d}")
            except InputError as found:
                error = str(found)
                break
        yield len(chunk)
    comm.agree(error)


def _make_part(chunk: list[Work], config: PreprocessConfig, tombstones: Tombstones, stem: Path) -> None:
    rows, dropped, counts = [], [], Account()
    for work in chunk:
        try:
            rows.append(_read_work(work, config, tombstones, counts))
        except Unreadable as reason:
            stage = "clean" if str(reason).startswith("clean:") else "read"
            dropped.append((work.id, stage, str(reason).removeprefix("clean:")))
    pq.write_table(pa.Table.from_pylist(rows, PART_SCHEMA), stem.with_suffix(".parquet"), compression="zstd")
    account = {
        "dropped": dropped,
        "blocks_in": counts.blocks_in,
        "blocks_out": counts.blocks_out,
        "blocks_dropped": counts.blocks_dropped,
        "redactions": counts.redactions,
        "repairs": counts.repairs,
    }
    temporary = stem.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(account))
    temporary.rename(stem.with_suffix(".json"))


def _read_work(work: Work, config: PreprocessConfig, tombstones: Tombstones, counts: Account) -> dict:
    """One row of a part, or Unreadable with the reason for which the work is dropped."""
    corpus = config.corpus
    if work.id in tombstones.names:
        raise Unreadable("taken_down")
    try:
        data = raw.read_bytes(corpus.folder(), work)
        digest = hashlib.sha256(data).hexdigest()
        if digest in tombstones.names:
            raise Unreadable("taken_down")
        if not data.strip():
            raise Unreadable("empty")
        blocks = blocks_of(work.path, data, corpus.max_text_mb * raw.MEGABYTE)
    except Unreadable as reason:
        if not corpus.quarantine and str(reason) not in ("empty", "taken_down", "no_text"):
            raise raw.cannot_be_used(corpus, work.path, str(reason)) from reason
        raise
    result = clean(blocks, config.clean)
    counts.blocks_in += len(blocks)
    counts.blocks_dropped += result.dropped
    counts.redactions += result.redactions
    counts.repairs += result.repairs
    dedup = config.clean.dedup
    prints = fingerprints(result.blocks, dedup)
    if not result.reason and dedup.taken_down and tombstones.cover(prints.document, dedup.threshold):
        result.reason = "taken_down_copy"
    if result.reason:
        counts.blocks_dropped[f"work:{result.reason}"] += len(result.blocks)
        raise Unreadable(f"clean:{result.reason}")
    counts.blocks_out += len(result.blocks)
    record = work.record
    return {
        "id": work.id,
        "source": str(record.get("source") or corpus.source),
        "title": str(record.get("title") or ""),
        "year": record.get("year"),
        "language": result.language,
        "licence": str(record.get("licence") or corpus.licence),
        "text": BLOCK_BREAK.join(result.blocks),
        "sha256": digest,
        "signature": prints.document,
        "blocks": prints.blocks,
    }


def cut_for_validation(text: str) -> tuple[str, str]:
    """A text's first nine tenths and the rest, cut before a line or a word."""
    near = len(text) * 9 // 10
    for mark in ("\n", " "):
        cut = text.find(mark, near)
        if 0 < cut < len(text) - 1:
            return text[:cut], text[cut + 1 :]
    return text[:near], text[near:]
