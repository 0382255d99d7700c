"""Works that left a dataset after a build: taken down, or opted out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data_prep import opt_out, tombstones

TAKEN_DOWN, OPTED_OUT = "taken down", "opted out"


@dataclass(frozen=True)
class Withdrawn:
    """A work that may no longer be used.

    Attributes:
        id: of the work.
        how: `TAKEN_DOWN` or `OPTED_OUT`.
        date: the day, ``YYYY-MM-DD``; "" where it is not known.
        manifests: of the builds that may hold the work.
        sha256: of the work's file, "" where it is not known.
    """

    id: str
    how: str
    date: str
    manifests: frozenset[str]
    sha256: str = ""


def of(folders: Iterable[Path]) -> list[Withdrawn]:
    """Every withdrawal that corpus and dataset folders record.

    Raises:
        InputError: a record cannot be read.
    """
    found = []
    for folder in dict.fromkeys(path.resolve() for path in folders):
        for how, entries in ((TAKEN_DOWN, tombstones.read(folder)), (OPTED_OUT, opt_out.read_record(folder))):
            for entry in entries:
                manifests = frozenset(entry.get("manifests", []))
                date, digest = str(entry.get("date") or ""), str(entry.get("sha256") or "")
                found.append(Withdrawn(entry["id"], how, date, manifests, digest))
    return found


def since(withdrawals: Iterable[Withdrawn], manifests: Iterable[str]) -> tuple[int, str]:
    """How many works left after builds with these manifests, and the last date; (0, "") for none."""
    builds = set(manifests)
    found = [item for item in withdrawals if builds & item.manifests]
    return len({item.id for item in found}), max((item.date for item in found), default="")
