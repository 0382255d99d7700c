"""The account of a build: what happened to every work and every block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

# How a work that is dropped opted out, by the reason for which it is dropped.
OPT_OUTS = {"opt_out": "list", "opt_out_copy": "copy of an opted-out work", "robots_txt": "robots.txt"}


@dataclass
class Counts:
    """What cleaning counted in one work.

    Attributes:
        blocks: blocks that came in.
        dropped: blocks left out, by reason.
        redactions: replacements, by kind.
        repairs: characters and lines set right, by kind.
    """

    blocks: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    redactions: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)


@dataclass
class Account:
    """What happened to works and blocks; `check` asserts that nothing is lost.

    A work that is dropped takes all its blocks along, as ``work:<reason>``. So ``blocks_dropped`` of any
    other reason, ``redactions`` and ``repairs`` tell of the works that stay.
    """

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
    access: Counter[str] = field(default_factory=Counter)
    rights_basis: Counter[str] = field(default_factory=Counter)
    opt_out: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str, blocks: int = 0) -> None:
        """Count a work that is dropped, with all its blocks."""
        self.works_in += 1
        self.works_dropped[reason] += 1
        if reason in OPT_OUTS:
            self.opt_out[OPT_OUTS[reason]] += 1
        if blocks:
            self.blocks_in += blocks
            self.blocks_dropped[f"work:{reason}"] += blocks

    def keep(self, row: dict, counts: Counts, out: int, duplicates: int) -> None:
        """Count a work that stays: its row, what cleaning counted, its blocks that stay or are repeated."""
        self.works_in += 1
        self.works_out += 1
        self.blocks_in += counts.blocks
        self.blocks_out += out
        self.blocks_dropped.update(counts.dropped)
        self.blocks_dropped["duplicate"] += duplicates
        self.redactions.update(counts.redactions)
        self.repairs.update(counts.repairs)
        self.languages[row["language"]] += 1
        self.sources[row["source"]] += 1
        self.licences[row["licence"]] += 1
        self.access[row["access"]] += 1
        self.rights_basis[row["rights_basis"]] += 1
        self.opt_out[row["opt_out"]] += 1

    def check(self, came: Iterable[str], went: Iterable[str]) -> None:
        """Assert in = out + dropped, for works and for blocks, and that no id is lost or added.

        Args:
            came: the ids that came in.
            went: the ids that stay or are dropped.
        """
        for name in ("works", "blocks"):
            all_in, out = getattr(self, f"{name}_in"), getattr(self, f"{name}_out")
            dropped = sum(getattr(self, f"{name}_dropped").values())
            if all_in != out + dropped:
                raise AssertionError(f"{name}: {all_in} in, but {out} out and {dropped} dropped")
        one, other = Counter(came), Counter(went)
        if different := (one - other) + (other - one):
            raise AssertionError(f"{len(different)} ids are not accounted for, first {min(different)!r}")
