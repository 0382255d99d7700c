"""How long do the documents to publish of a large dataset take?  ``python tests/bench/bundle.py [--works N]``

The dataset is made here: 60,000 works with a few kilobytes of text each, of three sources and a hundred
licences.
The limit to keep is 10 seconds for 60,000 works.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conf.schema.institution import Institution
from data_prep.bundle import write
from data_prep.documents import SCHEMA
from data_prep.indexed import index_bytes
from data_prep.manifest import FileInfo, Manifest, Split, TokenizerInfo

CHUNK = 2000  # works a row group


def make_large(folder: Path, works: int, text_bytes: int = 4000) -> Path:
    """A dataset of that many works, whose `.bin` is left out; every third work is for validation."""
    folder.mkdir(parents=True)
    generator, length = random.Random(1), 700
    text = " ".join(
        generator.choice(("haven", "market", "onderzoek", "policy")) for _ in range(text_bytes // 8)
    )
    counts: dict[str, dict[str, int]] = {"language": {}, "source": {}, "licence": {}}
    with pq.ParquetWriter(folder / "documents.parquet", SCHEMA, compression="zstd") as writer:
        for start in range(0, works, CHUNK):
            rows = [_row(number, generator, text) for number in range(start, min(start + CHUNK, works))]
            for row in rows:
                for column, known in counts.items():
                    known[row[column]] = known.get(row[column], 0) + 1
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    splits = {}
    for name, number in (("train", works - works // 3), ("valid", works // 3)):
        index = folder / f"large-{name}.idx"
        index.write_bytes(index_bytes(np.full(number, length, np.int32), np.dtype(np.uint16)))
        file = FileInfo(number * length * 2, "0" * 64)
        splits[name] = Split(
            f"large-{name}", number, number * length, file.bytes, 5.0, file, FileInfo.of(index)
        )
    files = {"documents.parquet": FileInfo.of(folder / "documents.parquet")}
    manifest = Manifest(
        "large", "key", "uint16", TokenizerInfo("0" * 64, 32000, 1, 2, 3), splits, files,
        {"in": works, "out": works, "dropped": {}}, {}, {}, counts["language"], counts["source"],
        counts["licence"], [], {},
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(manifest.dumps())
    (folder / "lineage.jsonl").write_text(json.dumps({"manifest": "0" * 64, "built": "2026-12-01"}) + "\n")
    return folder


def _row(number: int, generator: random.Random, text: str) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(SCHEMA.names, "unknown")
    row |= {"id": f"thesis:{number}", "title": f"Work {number}", "year": 1990 + number % 35, "text": text}
    row |= {
        "language": generator.choice(("nl", "en")),
        "source": generator.choice(("thesis", "pure", "repub")),
    }
    return row | {"licence": f"licence {number % 100}", "split": "valid" if number % 3 == 2 else "train"}


def main() -> None:
    """Make the dataset, write its documents twice and print the seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--works", type=int, default=60_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="elm-bench-") as scratch:
        folder = make_large(Path(scratch) / "large", arguments.works)
        size = (folder / "documents.parquet").stat().st_size
        print(f"{arguments.works:,} works, documents.parquet {size / 1e6:.1f} MB")
        for what in ("first", "again"):
            began = time.perf_counter()
            changed = write.write(folder, Institution())
            print(f"{what}: {time.perf_counter() - began:.2f} s, {len(changed)} documents written")


if __name__ == "__main__":
    main()
