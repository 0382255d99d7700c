"""The blocks of a raw file, by its type."""

from __future__ import annotations

from collections import Counter

from data_prep.pdf import extract
from data_prep.raw import Unreadable
from data_prep.text_layout import text_blocks


def blocks_of(path: str, data: bytes, max_text: int, counts: Counter[str] | None = None) -> list[str]:
    """The blocks of a work, lines separated by real line breaks.

    Args:
        path: its suffix says what it is.
        data: the file.
        max_text: most characters that a work may hold.
        counts: what is set right in the layout is counted here.

    Raises:
        Unreadable: with the reason.
    """
    if path.lower().endswith(".pdf"):
        blocks = extract(data, max_text)
    else:
        if len(data) > 4 * max_text:
            raise Unreadable("text_too_long")
        blocks = text_blocks(data, counts)
    if sum(map(len, blocks)) > max_text:
        raise Unreadable("text_too_long")
    return blocks
