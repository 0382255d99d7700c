"""``documents.parquet`` and ``dropped.parquet`` out of the parts: no duplicates, splits chosen, all counted.

Rank 0 does this alone, part by part in canonical order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from conf.schema.preprocess import MEGABYTE, PreprocessConfig
from data_prep import raw
from data_prep.account import Account, Counts
from data_prep.clean import BLOCK_BREAK
from data_prep.dedup import Decisions, Fingerprints, decide
from data_prep.split import choose_split
from data_prep.tombstones import Tombstones

DOCUMENTS, DROPPED = "documents.parquet", "dropped.parquet"
COPY = "opt_out_copy"  # the reason of a copy of a work that opted out
RIGHTS = ("licence", "access", "rights_basis", "opt_out")  # columns; absent in older files: unknown
UNKNOWN = "unknown"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("title", pa.string()),
        ("year", pa.int32()),
        ("language", pa.string()),
        ("licence", pa.string()),
        ("access", pa.string()),
        ("rights_basis", pa.string()),
        ("opt_out", pa.string()),
        ("text", pa.large_string()),
        ("sha256", pa.string()),
        ("split", pa.string()),
    ]
)
# A part has a document's columns but the split, the work's fingerprints, and what cleaning counted (JSON).
PART_SCHEMA = pa.schema(
    [*list(SCHEMA)[:-1], ("signature", pa.binary()), ("blocks", pa.binary()), ("counts", pa.string())]
)
DROPPED_SCHEMA = pa.schema([("id", pa.string()), ("stage", pa.string()), ("reason", pa.string())])
Drop = tuple[str, str, str]  # id, stage, reason


def merge_parts(scan: raw.Scan, config: PreprocessConfig, parts: Path, out: Path) -> Account:
    """Write ``documents.parquet`` and ``dropped.parquet`` out of the parts; rank 0 alone.

    Args:
        scan: the works that came in.
        config: the build's settings.
        parts: the folder of the parts.
        out: where the two files go.

    Returns:
        The account of the whole corpus, checked.
    """
    account = Account()
    dropped = [(identifier, "harvest", reason) for identifier, reason in scan.refused]
    dropped += [(identifier, "scan", reason) for identifier, reason in scan.rejected]
    for _, _, reason in dropped:
        account.drop(reason)
    stems = sorted(path.with_suffix("") for path in parts.glob("*.json"))
    opted_out: set[str] = set()
    for stem in stems:
        part = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        opted_out.update(filter(None, part.get("opted_out", [])))
        for identifier, stage, reason, blocks in part["dropped"]:
            dropped.append((identifier, stage, reason))
            account.drop(reason, blocks)
    copies = _copies(stems, opted_out, config)
    prints, ids = _fingerprints(stems)
    decisions = decide(prints, config.clean.dedup, parts, dict.fromkeys(copies, COPY))
    staying = [identifier for index, identifier in enumerate(ids) if index not in decisions.documents]
    _write_documents(_rows(stems), decisions, staying, config, out / f"{DOCUMENTS}.tmp", account, dropped)
    account.check(scan.ids(), [*staying, *(identifier for identifier, _, _ in dropped)])
    columns = zip(*sorted(dropped), strict=True) if dropped else ([], [], [])
    table = pa.Table.from_arrays(
        [pa.array(list(item), pa.string()) for item in columns], schema=DROPPED_SCHEMA
    )
    pq.write_table(table, out / f"{DROPPED}.tmp", compression="zstd")
    for name in (DROPPED, DOCUMENTS):
        (out / f"{name}.tmp").replace(out / name)
    return account


def _write_documents(
    rows: Iterator[dict],
    decisions: Decisions,
    staying: list[str],
    config: PreprocessConfig,
    path: Path,
    account: Account,
    dropped: list[Drop],
) -> None:
    """Write the works that stay, without repeated blocks, in row groups of ``preprocess.chunk_mb``."""
    splits = choose_split(staying, config.preprocess.valid_fraction)
    held: list[dict] = []
    size = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for index, row in enumerate(rows):
            counts = Counts(**json.loads(row.pop("counts")))
            if reason := decisions.documents.get(index):
                dropped.append((row["id"], "dedup", reason))
                account.drop(reason, counts.blocks)
                continue
            blocks, gone = row["text"].split(BLOCK_BREAK), decisions.blocks.get(index, set())
            kept = [block for number, block in enumerate(blocks) if number not in gone]
            account.keep(row, counts, len(kept), len(gone))
            held.append({**row, "text": BLOCK_BREAK.join(kept), "split": splits[row["id"]]})
            size += len(held[-1]["text"].encode())
            if size >= config.preprocess.chunk_mb * MEGABYTE:
                writer.write_table(pa.Table.from_pylist(held, SCHEMA))
                held, size = [], 0
        if held:
            writer.write_table(pa.Table.from_pylist(held, SCHEMA))


def _fingerprints(stems: list[Path]) -> tuple[Iterator[Fingerprints], list[str]]:
    """The fingerprints of all works in order, read part by part, and their ids."""
    ids = [item for stem in stems for item in pq.read_table(_parquet(stem), columns=["id"])["id"].to_pylist()]

    def read() -> Iterator[Fingerprints]:
        for stem in stems:
            table = pq.read_table(_parquet(stem), columns=["signature", "blocks"])
            for signature, blocks in zip(table["signature"], table["blocks"], strict=True):
                yield Fingerprints(signature.as_py(), blocks.as_py())

    return read(), ids


def _copies(stems: list[Path], signatures: set[str], config: PreprocessConfig) -> list[int]:
    """The works that are copies of one that opted out, by their place in the order."""
    if not signatures:
        return []
    opted_out, threshold = Tombstones(signatures=tuple(sorted(signatures))), config.clean.dedup.threshold
    prints, _ = _fingerprints(stems)
    return [place for place, item in enumerate(prints) if opted_out.cover(item.document, threshold)]


def _rows(stems: list[Path]) -> Iterator[dict]:
    for stem in stems:  # a part of an older version has fewer columns
        table = pq.ParquetFile(_parquet(stem)).read(columns=[*SCHEMA.names[:-1], "counts"])
        for row in table.to_pylist():
            yield {**dict.fromkeys(RIGHTS, UNKNOWN), **row}


def _parquet(stem: Path) -> Path:
    return stem.with_suffix(".parquet")
