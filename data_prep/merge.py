"""Parts to ``documents.parquet`` and ``dropped.parquet``: no duplicates, splits chosen, everything counted.

Rank 0 does this alone, part by part in canonical order.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from conf.schema.preprocess import PreprocessConfig
from data_prep import raw
from data_prep.clean import BLOCK_BREAK
from data_prep.dedup import Decisions, Fingerprints, decide
from data_prep.documents import DOCUMENTS, DROPPED, DROPPED_SCHEMA, SCHEMA, Account


def merge_parts(scan: raw.Scan, config: PreprocessConfig, parts: Path, out: Path) -> Account:
    """Write ``documents.parquet`` and ``dropped.parquet`` out of the parts; rank 0 alone.

    Returns:
        The account of the whole corpus, checked.
    """
    account = Account(works_in=len(scan.works) + len(scan.rejected) + len(scan.refused))
    dropped = [(identifier, "harvest", reason) for identifier, reason in scan.refused]
    dropped += [(identifier, "scan", reason) for identifier, reason in scan.rejected]
    stems = sorted(path.with_suffix("") for path in parts.glob("*.json"))
    for stem in stems:
        part = json.loads(stem.with_suffix(".json").read_text())
        dropped += [tuple(item) for item in part["dropped"]]
        account.blocks_in += part["blocks_in"]
        account.blocks_out += part["blocks_out"]
        account.blocks_dropped.update(part["blocks_dropped"])
        account.redactions.update(part["redactions"])
        account.repairs.update(part["repairs"])
    prints, ids = _fingerprints(stems)
    decisions = decide(prints, config.clean.dedup, parts)
    staying = [identifier for index, identifier in enumerate(ids) if index not in decisions.documents]
    kept: list[str] = []
    splits = choose_split(staying, config.preprocess.valid_fraction)
    with pq.ParquetWriter(out / f"{DOCUMENTS}.tmp", SCHEMA, compression="zstd") as writer:
        rows: list[dict] = []
        size, index = 0, -1
        for row in _rows(stems):
            index += 1
            if not _keep_blocks(row, index, decisions, account):
                dropped.append((row["id"], "dedup", decisions.documents[index]))
                continue
            for counter, key in (
                (account.languages, "language"),
                (account.sources, "source"),
                (account.licences, "licence"),
            ):
                counter[row[key]] += 1
            account.works_out += 1
            kept.append(row["id"])
            rows.append({**row, "split": splits[row["id"]]})
            size += len(row["text"].encode())
            if size >= config.preprocess.chunk_mb * raw.MEGABYTE:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows, size = [], 0
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    account.works_dropped.update(reason for _, _, reason in dropped)
    account.check()
    _check_ids(scan, [*kept, *(identifier for identifier, _, _ in dropped)])
    columns = zip(*sorted(dropped), strict=True) if dropped else ([], [], [])
    table = pa.Table.from_arrays(
        [pa.array(list(item), pa.string()) for item in columns], schema=DROPPED_SCHEMA
    )
    pq.write_table(table, out / f"{DROPPED}.tmp", compression="zstd")
    for name in (DROPPED, DOCUMENTS):
        (out / f"{name}.tmp").replace(out / name)
    return account


def _check_ids(scan: raw.Scan, went: list[str]) -> None:
    """Assert that every id that came in is, as often as it came, among those that stayed or were dropped."""
    came = [work.id for work in scan.works] + [identifier for identifier, _ in scan.rejected + scan.refused]
    if different := (Counter(came) - Counter(went)) + (Counter(went) - Counter(came)):
        raise AssertionError(f"{len(different)} ids are not accounted for, first {min(different)!r}")


def _fingerprints(stems: list[Path]) -> tuple[Iterator[Fingerprints], list[str]]:
    """The fingerprints of all works in order, read part by part, and their ids."""
    ids = [item for stem in stems for item in pq.read_table(_parquet(stem), columns=["id"])["id"].to_pylist()]

    def read() -> Iterator[Fingerprints]:
        for stem in stems:
            table = pq.read_table(_parquet(stem), columns=["signature", "blocks"])
            for signature, blocks in zip(table["signature"], table["blocks"], strict=True):
                yield Fingerprints(signature.as_py(), blocks.as_py())

    return read(), ids


def _rows(stems: list[Path]) -> Iterator[dict]:
    for stem in stems:
        yield from pq.read_table(_parquet(stem), columns=SCHEMA.names[:-1]).to_pylist()


def _parquet(stem: Path) -> Path:
    return stem.with_suffix(".parquet")


def _keep_blocks(row: dict, index: int, decisions: Decisions, account: Account) -> bool:
    """Take the duplicate blocks out of a row; False when the whole work goes. Moves the account along."""
    blocks = row["text"].split(BLOCK_BREAK)
    gone = decisions.blocks.get(index, set())
    kept = [block for number, block in enumerate(blocks) if number not in gone]
    if index in decisions.documents:
        account.blocks_out -= len(blocks)
        account.blocks_dropped[f"work:{decisions.documents[index]}"] += len(blocks)
        return False
    account.blocks_out -= len(blocks) - len(kept)
    account.blocks_dropped["duplicate"] += len(blocks) - len(kept)
    row["text"] = BLOCK_BREAK.join(kept)
    return True


def choose_split(ids: list[str], valid_fraction: float) -> dict[str, str]:
    """``train``, ``valid`` or ``both`` (the last tenth goes to validation) for each work.

    A work's hash alone decides, so that it stays where it is when others come; at least one work is in each
    split. With fewer than three works every one is cut.
    """
    if len(ids) < 3:
        return dict.fromkeys(ids, "both")
    ranks = {item: hashlib.sha256(f"split\x00{item}".encode()).digest() for item in ids}
    bound = int(valid_fraction * 2**64).to_bytes(9, "big")[1:]
    splits = {item: "valid" if rank[:8] < bound else "train" for item, rank in ranks.items()}
    splits[min(ids, key=ranks.__getitem__)] = "valid"
    if "train" not in splits.values():
        splits[max(ids, key=ranks.__getitem__)] = "train"
    return splits
