"""Tombstones: what keeps a work that was taken down out of every later harvest and build.

``tombstones.jsonl`` stands in corpus and dataset folders. A line holds the work's id, the sha256 of its
file, the date, the manifests of the builds that may hold it, and its MinHash signature (see `dedup`). No text
can be got back from those 256 bytes, but they tell a copy that differs in a few words or in its file format.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conf.errors import InputError
from conf.schema.preprocess import MEGABYTE, DedupConfig, PreprocessConfig
from data_prep import files
from data_prep.clean import clean
from data_prep.dedup import DOCUMENT_RECORD, fingerprints
from data_prep.extract import blocks_of
from data_prep.raw import Unreadable

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


def signature_of_file(path: str, data: bytes, config: PreprocessConfig) -> str:
    """The signature of a raw file's cleaned text, or "" where there is none."""
    try:
        blocks = clean(blocks_of(path, data, config.corpus.max_text_mb * MEGABYTE), config.clean).blocks
    except Unreadable:
        return ""
    return signature(blocks) if blocks else ""


def load(config: PreprocessConfig) -> Tombstones:
    """The tombstones of the corpus folder and of the dataset folder together."""
    entries = [item for folder in (config.corpus.folder(), config.data_dir()) for item in read(folder)]
    names = {value for item in entries for value in (item.get("id"), item.get("sha256")) if value}
    return Tombstones(
        frozenset(names), tuple(sorted({item["minhash"] for item in entries if item.get("minhash")}))
    )


def read(folder: Path) -> list[dict]:
    """The entries in one folder; a missing file holds none.

    Raises:
        InputError: a line is no tombstone. None is passed over: the work it names would come back.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    entries = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not _is_tombstone(entry):
            raise InputError(
                f"{path}: line {number} is no tombstone, and the work it names could come back: repair it."
            )
        entries.append(entry)
    return entries


def _is_tombstone(entry: object) -> bool:
    """Whether its values are of the kinds that a take-down writes."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        return False
    digest, manifests = entry.get("sha256"), entry.get("manifests", [])
    texts = isinstance(digest, str | None) and isinstance(manifests, list)
    return texts and all(isinstance(item, str) for item in manifests) and _is_signature(entry.get("minhash"))


def _is_signature(text: object) -> bool:
    try:
        return not text or len(bytes.fromhex(text)) == DOCUMENT_RECORD.itemsize
    except (TypeError, ValueError):
        return False


def add(folder: Path, entries: list[dict]) -> None:
    """Add entries to those of a folder, all or none."""
    every = [*read(folder), *entries]
    files.write(folder / FILE, "".join(json.dumps(entry) + "\n" for entry in every))
