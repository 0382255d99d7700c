"""From the blocks of a raw work to the text that may be learnt from: every rule counted, none silent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from data_prep.config import CleanConfig
from data_prep.encoder import SPACE

BLOCK_BREAK = "\n\n"  # between the blocks of a document; inside a block lines end in one line break


@dataclass
class Cleaned:
    """A work after cleaning.

    Attributes:
        blocks: kept blocks.
        dropped: blocks left out, by reason.
        redactions: replacements, by kind.
        reason: why the whole work is dropped, or empty.
        language: ``nl``, ``en`` or ``other``.
    """

    blocks: list[str]
    dropped: Counter[str] = field(default_factory=Counter)
    redactions: Counter[str] = field(default_factory=Counter)
    reason: str = ""
    language: str = "other"


def clean(blocks: list[str], config: CleanConfig) -> Cleaned:
    """Apply every rule that is switched on to the blocks of one work."""
    work = Cleaned([normalise(block) for block in blocks])
    work.blocks, short = _long_enough(work.blocks, config.min_block_tokens)
    work.dropped["short"] += short
    if not work.blocks:
        work.reason = "no_block_left"
    return work


def normalise(block: str) -> str:
    """One space between words, no empty line, U+2581 (SentencePiece's own space) as ``_``."""
    block = block.replace(SPACE, "_")
    lines = (" ".join(line.split()) for line in block.split("\n"))
    return "\n".join(line for line in lines if line)


def _long_enough(blocks: list[str], least: int) -> tuple[list[str], int]:
    kept = [block for block in blocks if len(block.split()) >= least]
    return kept, len(blocks) - len(kept)
