"""The layout of text files: which lines are blocks.

EUR publishes one file per work and one line per block. In a block the two characters ``\\`` ``n`` stand for a
line break of the original page.
"""

from __future__ import annotations

from data_prep.raw import Unreadable

LINE_BREAK = "\\n"  # two characters, as EUR publishes it


def text_blocks(data: bytes) -> list[str]:
    """The blocks of a file in EUR's layout, with real line breaks in them.

    Raises:
        Unreadable: not UTF-8, or binary data (NUL bytes).
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable("not_utf8") from error
    if "\x00" in text:
        raise Unreadable("binary")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line.replace(LINE_BREAK, "\n") for line in lines if line.strip()]
