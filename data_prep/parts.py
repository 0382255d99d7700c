"""Raw files to cleaned parts, on any number of ranks.

The canonical order of the works is cut into chunks by input bytes. Ranks take chunks in turn; each chunk
becomes a part, two files, which is also the unit of restart; `documents.py` makes one file of all parts. So
the result does not depend on the number of ranks.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from conf.errors import InputError
from conf.schema.preprocess import MEGABYTE, PreprocessConfig
from data_prep import files, opt_out, raw, tombstones
from data_prep.clean import clean
from data_prep.comm import Comm
from data_prep.dedup import fingerprints
from data_prep.documents import PART_SCHEMA
from data_prep.extract import blocks_of
from data_prep.plan import Plan
from data_prep.raw import Unreadable, Work

CHUNK_WORKS = 1000  # works of a chunk at most, so that many small files are restarted in steps too
NO_FAULT = (
    "empty",
    "taken_down",
    "no_text",
    opt_out.REASON,
)  # reasons that stop no build, whatever corpus.quarantine says


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


def make_parts(plan: Plan, config: PreprocessConfig, folder: Path, comm: Comm) -> Iterator[int]:
    """Read and clean this rank's chunks; a chunk whose part is there is not read again.

    Args:
        plan: the works in canonical order, and which may not be used; the same on every rank.
        config: the build's settings.
        folder: where parts go.
        comm: the ranks.

    Yields:
        Works done, after each chunk of this rank.

    Raises:
        InputError: on every rank, when a work cannot be read and ``corpus.quarantine`` is false.
    """
    error = None
    for number, chunk in enumerate(chunks(plan.scan.works, config.preprocess.chunk_mb * MEGABYTE)):
        if number % comm.size != comm.rank:
            continue
        if not (folder / f"{number:06d}.json").exists():
            try:
                _make_part(chunk, config, plan, folder / f"{number:06d}")
            except InputError as found:
                error = str(found)
                break
        yield len(chunk)
    comm.agree(error)


def _make_part(chunk: list[Work], config: PreprocessConfig, plan: Plan, stem: Path) -> None:
    """Write ``<stem>.parquet``, the works that stay, and then ``<stem>.json``, what was dropped."""
    rows, dropped, opted_out = [], [], []
    for work in chunk:
        try:
            rows.append(_read_work(work, config, plan))
        except Unreadable as drop:
            dropped.append((work.id, drop.stage, drop.reason, drop.blocks))
            if drop.reason == opt_out.REASON:
                opted_out.append(_signature(work, config))
    pq.write_table(pa.Table.from_pylist(rows, PART_SCHEMA), stem.with_suffix(".parquet"), compression="zstd")
    files.write(stem.with_suffix(".json"), json.dumps({"dropped": dropped, "opted_out": opted_out}))


def _signature(work: Work, config: PreprocessConfig) -> str:
    """The signature by which copies of a work that opted out are known, or "" where it has no text."""
    if not config.clean.dedup.taken_down:
        return ""
    try:
        data = raw.read_bytes(config.corpus.folder(), work)
    except Unreadable:
        return ""
    return tombstones.signature_of_file(work.path, data, config)


def _read_work(work: Work, config: PreprocessConfig, plan: Plan) -> dict:
    """One row of a part, or Unreadable with the reason for which the work is dropped."""
    corpus, dedup, joined = config.corpus, config.clean.dedup, Counter()
    try:
        blocks, digest = _read_blocks(work, config, plan, joined)
    except Unreadable as drop:
        if not corpus.quarantine and drop.reason not in NO_FAULT:
            raise raw.cannot_be_used(corpus, work.path, drop.reason) from drop
        raise
    result = clean(blocks, config.clean)
    result.counts.repairs += joined
    if result.reason:
        raise Unreadable(result.reason, "clean", len(blocks))
    prints = fingerprints(result.blocks, dedup)
    if dedup.taken_down and plan.tombstones.cover(prints.document, dedup.threshold):
        raise Unreadable("taken_down_copy", "clean", len(blocks))
    record = work.record
    return {
        "id": work.id,
        "source": str(record.get("source") or corpus.source),
        "title": str(record.get("title") or ""),
        "year": record.get("year"),
        "language": result.language,
        "licence": str(record.get("licence") or corpus.licence),
        "access": str(record.get("access") or "unknown"),
        "rights_basis": str(record.get("rights_basis") or corpus.rights_basis),
        "opt_out": opt_out.opt_out_of(record, listed=corpus.opt_out is not None),
        "text": result.text(),
        "sha256": digest,
        "signature": prints.document,
        "blocks": prints.blocks,
        "counts": json.dumps(vars(result.counts)),
    }


def _read_blocks(
    work: Work, config: PreprocessConfig, plan: Plan, joined: Counter[str]
) -> tuple[list[str], str]:
    """A work's blocks and the sha256 of its file; `joined` counts what the layout needed."""
    if work.id in plan.tombstones.names:
        raise Unreadable("taken_down")
    if work.id in plan.opt_outs.works:
        raise Unreadable(opt_out.REASON)
    data = raw.read_bytes(config.corpus.folder(), work)
    digest = hashlib.sha256(data).hexdigest()
    if digest in plan.tombstones.names:
        raise Unreadable("taken_down")
    if not data.strip():
        raise Unreadable("empty")
    return blocks_of(work.path, data, config.corpus.max_text_mb * MEGABYTE, joined), digest
