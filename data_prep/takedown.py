"""Taking a work down: tombstones that every later harvest and build honours."""

from __future__ import annotations

import json
from pathlib import Path

from data_prep.config import PreprocessConfig

TOMBSTONES = "tombstones.jsonl"  # one {"id", "sha256", "date"} per line, in the corpus and the dataset folder


def tombstones(config: PreprocessConfig) -> set[str]:
    """Ids and sha256 of the works that were taken down from this corpus."""
    found: set[str] = set()
    for folder in (config.corpus.folder(), config.data_dir()):
        for entry in read_tombstones(folder / TOMBSTONES):
            found.update(value for value in (entry.get("id"), entry.get("sha256")) if value)
    return found


def read_tombstones(path: Path) -> list[dict]:
    """The entries of one tombstone file; a missing file holds none."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
