"""The harvest's journal, ``records.jsonl``: one JSON object per decision; the last on an id counts."""

from __future__ import annotations

import json
import os
from pathlib import Path

from conf.errors import InputError

RECORDS_FILE = "records.jsonl"
HARVESTED = "files/"  # where the harvest puts works


def read_journal(root: Path) -> dict[str, dict]:
    """The last entry on each id; a line that a kill or a full disk left torn is left out.

    Raises:
        InputError: a whole line is no entry of a harvest.
    """
    path = root / RECORDS_FILE
    entries: dict[str, dict] = {}
    if not path.is_file():
        return entries
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if not _is_entry(entry):
                raise InputError(
                    f"{path}: line {number} is no record of a harvest, which has an id, a status and, "
                    "when it was kept, a file; repair or remove the line."
                )
            entries[entry["id"]] = entry
    return entries


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    needed = ("id", "status", "file") if entry.get("status") == "kept" else ("id", "status")
    return all(isinstance(entry.get(key), str) for key in needed)


class Journal:
    """The journal of a corpus folder while a harvest writes it.

    Attributes:
        root: the corpus folder.
        known: the last entry on each id.
    """

    def __init__(self, root: Path) -> None:
        """Read what is there; a torn last line is ended, so that the next one is not lost with it."""
        self.root, self.known = root, read_journal(root)
        self._path = root / RECORDS_FILE
        if self._path.exists() and self._path.stat().st_size:
            with self._path.open("rb+") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")

    def decide(self, entry: dict) -> None:
        """Write a decision; a file that was kept of the record before, and is not now, is deleted."""
        before = self.known.get(entry["id"], {}).get("file")
        if before and before != entry.get("file"):
            (self.root / before).unlink(missing_ok=True)
        self.known[entry["id"]] = entry
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def has_file(self, entry: dict) -> bool:
        """Whether the file of a kept record is there."""
        return (self.root / entry["file"]).exists()
