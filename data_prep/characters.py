"""Characters set right: mojibake, ligatures, signs that nobody sees, and one form of Unicode."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from data_prep.tokenizer import SPACE

# UTF-8 that was read as Windows-1252: a lead byte and one to three continuation bytes, as they look there.
MOJIBAKE = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u2013-\u203a\u20ac\u2122]{1,3}"
)
LIGATURES = {
    "ﬀ": "ff",
    "ﬁ": "fi",
    "ﬂ": "fl",
    "ﬃ": "ffi",
    "ﬄ": "ffl",
    "ﬅ": "st",
    "ﬆ": "st",
    "Ĳ": "IJ",
    "ĳ": "ij",
}
INVISIBLE = {"\u00ad": "", "\u200b": "", "\u2060": "", "\ufeff": "", "\u200e": "", "\u200f": "", SPACE: "_"}
# Control characters other than tab and line break; private-use and unassigned characters stay, as bytes.
CONTROL = {chr(code): "" for code in [*range(9), 11, 12, *range(14, 32), *range(127, 160)]}
ALWAYS = str.maketrans({**INVISIBLE, **CONTROL})
# Normalising sorts a run of combining marks by insertion. No language needs more than 30 of them (UAX #15,
# stream-safe text format), so a longer run is cut behind the thirtieth.
TOO_MANY_MARKS = re.compile(r"(?<=[^\w\s\x00-\x7f]{30})")
REPAIR = str.maketrans(LIGATURES)


def repair(text: str, counts: Counter[str]) -> str:
    """Undo UTF-8 read as Windows-1252, twice if need be, and take ligatures apart; both are counted."""
    counts["ligature"] += sum(map(text.count, LIGATURES))
    text = text.translate(REPAIR)
    for _ in range(2):
        repaired = MOJIBAKE.sub(_repair_character, text)
        if repaired == text:
            break
        counts["mojibake"] += sum(_repair_character(match) != match[0] for match in MOJIBAKE.finditer(text))
        text = repaired
    return text


def _repair_character(match: re.Match[str]) -> str:
    """The characters that the bytes of a garbled sequence spell; itself when they spell none."""
    for end in range(len(match[0]), 1, -1):
        part = match[0][:end]
        data = b"".join(
            char.encode("latin-1") if ord(char) < 256 else char.encode("cp1252", "replace") for char in part
        )
        try:
            return data.decode() + match[0][end:]
        except UnicodeDecodeError:
            continue
    return match[0]


def normalise(block: str) -> str:
    """NFC, one space between words, no empty line, no control or invisible character.

    U+2581, SentencePiece's own sign for a space, becomes ``_``: the one character that it cannot give back.
    """
    parts = TOO_MANY_MARKS.split(block.translate(ALWAYS))
    block = "".join(unicodedata.normalize("NFC", part) for part in parts)
    lines = (" ".join(line.split()) for line in block.split("\n"))
    return "\n".join(line for line in lines if line)
