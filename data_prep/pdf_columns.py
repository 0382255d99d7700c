"""Two columns that a PDF draws row by row, put into reading order.

A row with a wide gap may also belong to a table. Columns of running text have many such rows below each
other, their gaps in one place, and several words on both sides of it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

LEAST_ROWS = 4  # rows of two parts that make columns
LEAST_WORDS = 3.0  # mean words in a part of a row
LEAST_LETTERS = 0.8  # share of letters among the characters of columns
LEAST_WIDTH = 0.2  # of a column, as a share of the text's width


@dataclass(frozen=True)
class Line:
    """A line of a page: its text and its box in points, the origin at the lower left."""

    text: str
    left: float
    bottom: float
    right: float
    top: float


def in_reading_order(pieces: list[Line]) -> list[Line]:
    """The pieces of a page; those of two columns drawn row by row follow column after column."""
    gutter = _gutter(pieces)
    if gutter is None:
        return pieces
    result: list[Line] = []
    left: list[Line] = []
    right: list[Line] = []
    for piece in pieces:
        if piece.left < gutter < piece.right:  # a heading over both columns
            result += left + right + [piece]
            left, right = [], []
        else:
            (left if piece.right <= gutter else right).append(piece)
    return result + left + right


def _gutter(pieces: list[Line]) -> float | None:
    """The place between two columns, or None where there are none."""
    pairs = [(first, second) for first, second in itertools.pairwise(pieces) if _is_beside(first, second)]
    if len(pairs) < LEAST_ROWS:
        return None
    start = max(sorted(first.right for first, _ in pairs)[: max(1, int(0.9 * len(pairs)))])
    end = min(sorted(second.left for _, second in pairs)[len(pairs) // 10 :])
    if end <= start:
        return None
    gutter = (start + end) / 2
    parts = [piece for pair in pairs for piece in pair]
    crossing = sum(piece.left < gutter < piece.right for piece in pieces)
    width = max(piece.right for piece in pieces) - min(piece.left for piece in pieces)
    text = "".join("".join(piece.text.split()) for piece in parts)
    columns = (
        sum(len(piece.text.split()) for piece in parts) >= LEAST_WORDS * len(parts)
        and sum(map(str.isalpha, text)) >= LEAST_LETTERS * len(text)
        and all(_mean_width(side) >= LEAST_WIDTH * width for side in zip(*pairs, strict=True))
        and crossing <= len(pairs)
    )
    return gutter if columns else None


def _is_beside(first: Line, second: Line) -> bool:
    """Whether a piece is on the line of the one before, behind a gap."""
    overlap = min(first.top, second.top) - max(first.bottom, second.bottom)
    height = min(first.top - first.bottom, second.top - second.bottom)
    return overlap > 0.5 * height and second.left - first.right > height


def _mean_width(pieces: tuple[Line, ...]) -> float:
    return sum(piece.right - piece.left for piece in pieces) / len(pieces)
