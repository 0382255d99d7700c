"""Tombstones: what keeps a work that was taken down out of every later harvest and build.

``tombstones.jsonl`` stands in corpus and dataset folders. A line holds the work's id, the sha256 of its
file, the date, the manifests of the builds that may hold it, and its MinHash signature (see `dedup`). No text
can be got back from those 256 bytes, but they tell a copy that differs in a few words or in its file format.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.config import DedupConfig, PreprocessConfig
from data_prep.dedup import DOCUMENT_RECORD, fingerprints

FILE = "tombstones.jsonl"


@dataclass(frozen=True)
class Tombstones:
    """The works that were taken down from a corpus.

    Attributes:
        names: their ids and the sha256 of their files.
        signatures: `DOCUMENT_RECORD`s, as `signature` writes them.
    """

    names: frozenset[str] = frozenset()
    signatures: tuple[str, ...] = ()

    def cover(self, record: bytes, threshold: float) -> bool:
        """Whether a work's `Fingerprints.document` is that of a copy of one of them."""
        if not self.signatures:
            return False
        own = np.frombuffer(record, DOCUMENT_RECORD)["minima"]
        theirs = np.frombuffer(bytes.fromhex("".join(self.signatures)), DOCUMENT_RECORD)["minima"]
        return bool(((theirs == own).mean(axis=1) >= threshold).any())


def signature(blocks: list[str]) -> str:
    """The signature of a work's cleaned blocks, in hexadecimal digits."""
    return fingerprints(blocks, DedupConfig(near=True, blocks=False)).document.hex()


def load(config: PreprocessConfig) -> Tombstones:
    """The tombstones of the corpus folder and of the dataset folder together."""
    entries = [item for folder in (config.corpus.folder(), config.data_dir()) for item in read(folder)]
    names = {value for item in entries for value in (item.get("id"), item.get("sha256")) if value}
    return Tombstones(
        frozenset(names), tuple(sorted({item["minhash"] for item in entries if item.get("minhash")}))
    )


def read(folder: Path) -> list[dict]:
    """The entries in one folder; a missing file holds none."""
    path = folder / FILE
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def add(folder: Path, entries: list[dict]) -> None:
    """Add entries to those of a folder, all or none."""
    path, temporary = folder / FILE, folder / f"{FILE}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in [*read(folder), *entries])
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
