"""Columns that a PDF draws row by row, put into reading order.

A row with a wide gap may also belong to a table. Columns of running text have many such rows below each
other, their gaps in one place, and several words on both sides of it.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

LEAST_ROWS = 4  # rows of two parts that make columns
LEAST_WORDS = 3.0  # mean words in a part of a row
LEAST_LETTERS = 0.8  # share of letters among the characters of columns
LEAST_NUMBERS = 8  # of a page whose lines are numbered
ACROSS = 8  # heights of a line that no letter has
LEAST_WIDTH = 0.2  # of a column, as a share of the text's width


NUMBER = re.compile(r"\s*\d{1,4}\s*")


@dataclass(frozen=True)
class Line:
    """A line of a page: its text and its box in points, the origin at the lower left."""

    text: str
    left: float
    bottom: float
    right: float
    top: float


def is_across(first: Line, second: Line) -> bool:
    """Whether one of two pieces is written across the lines of the page, as a watermark is."""
    heights = sorted((first.top - first.bottom, second.top - second.bottom))
    return heights[1] > ACROSS * heights[0]


def without_line_numbers(pieces: list[Line]) -> list[Line]:
    """The pieces of a page without the numbers of its lines, which are left of all text and count up."""
    numbers = [piece for piece in pieces if NUMBER.fullmatch(piece.text)]
    text = [piece.left for piece in pieces if not NUMBER.fullmatch(piece.text)]
    if len(numbers) < LEAST_NUMBERS or not text or max(piece.right for piece in numbers) >= min(text):
        return pieces
    steps = {int(below.text) - int(above.text) for above, below in itertools.pairwise(numbers)}
    return [piece for piece in pieces if piece not in numbers] if steps in ({1}, {5}, {10}) else pieces


def in_reading_order(pieces: list[Line]) -> list[Line]:
    """The pieces of a page; those of columns drawn row by row follow column after column."""
    gutter = _gutter(pieces)
    if gutter is None:
        return pieces
    result: list[Line] = []
    left: list[Line] = []
    right: list[Line] = []
    for piece in pieces:
        if piece.left < gutter < piece.right:  # a heading over both columns
            result += [*in_reading_order(left), *in_reading_order(right), piece]
            left, right = [], []
        else:
            (left if piece.right <= gutter else right).append(piece)
    return result + in_reading_order(left) + in_reading_order(right)


def _gutter(pieces: list[Line]) -> float | None:
    """The place between two columns, or None where there are none; of several the one with most rows."""
    pairs = [(first, second) for first, second in itertools.pairwise(pieces) if _is_beside(first, second)]
    if len(pairs) < LEAST_ROWS:
        return None
    places = {(first.right + second.left) / 2 for first, second in pairs}
    gutter = max(sorted(places), key=lambda place: sum(_has(pair, place) for pair in pairs))
    pairs = [pair for pair in pairs if _has(pair, gutter)]
    parts = [piece for pair in pairs for piece in pair]
    crossing = sum(piece.left < gutter < piece.right for piece in pieces)
    width = max(piece.right for piece in pieces) - min(piece.left for piece in pieces)
    text = "".join("".join(piece.text.split()) for piece in parts)
    columns = (
        len(pairs) >= LEAST_ROWS
        and sum(len(piece.text.split()) for piece in parts) >= LEAST_WORDS * len(parts)
        and sum(map(str.isalpha, text)) >= LEAST_LETTERS * len(text)
        and all(_mean_width(side) >= LEAST_WIDTH * width for side in zip(*pairs, strict=True))
        and crossing <= len(pairs)
    )
    return gutter if columns else None


def _has(pair: tuple[Line, Line], place: float) -> bool:
    """Whether a place is in the gap between two pieces."""
    return pair[0].right < place < pair[1].left


def _is_beside(first: Line, second: Line) -> bool:
    """Whether a piece is beside the one before, behind a gap; columns need not have common lines."""
    overlap = min(first.top, second.top) - max(first.bottom, second.bottom)
    height = min(first.top - first.bottom, second.top - second.bottom)
    return overlap > 0.1 * height and second.left - first.right > height


def _mean_width(pieces: tuple[Line, ...]) -> float:
    return sum(piece.right - piece.left for piece in pieces) / len(pieces)
