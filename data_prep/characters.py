"""Characters set right: mojibake, ligatures, control characters, signs that nobody sees, one form of Unicode.

Text that is right must not change. So mojibake, which is UTF-8 read as Windows-1252, is repaired only where
the work has evidence of it: “CAFÉ” and Å² have the same characters as garbled text and are not garbled.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import ftfy
from ftfy.chardata import LIGATURES

from data_prep.tokenizer import SPACE

MOJIBAKE_KIND, LIGATURE_KIND = "mojibake", "ligature"
WINDOWS_KIND, SPACE_KIND, DAMAGED_KIND = "Windows-1252 character", "control space", "damaged character"
_TRAIL = "\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122"
# A lead byte and one to three continuation bytes, as they look in Windows-1252.
MOJIBAKE = re.compile(f"[\u00c2-\u00f4][{_TRAIL}]{{1,3}}")
# What only garbled text has. A capital lead byte behind a small letter (fÃ©); behind Ã or Â a sign that ends
# no word, but no small letter's sign in a word of capitals (IRMÃº, »IRMÃ«); a lead byte and a sign in front
# of a small letter (Ã–mer), but no apostrophe (Ø’s); and â€, ðŸ.
EVIDENCE = re.compile(
    rf"(?<=[a-zà-ÿ])[Â-Þ][{_TRAIL}]"
    r"|Ã[\u0080-\u009f€‚ƒ„†‡ˆ‰Š‹ŒŽžŸšœ]"
    r"|(?<![A-ZÀ-Þ]{2})Ã[¡-¨©ª«¬\u00ad¯±´µ¶¸º¼-¿]"
    r"|(?<![A-ZÀ-Þ])Ã\u00a0"
    r"|(?<![A-ZÀ-Þ])Â[\u00a0-¿]"
    rf"|(?<!\w)[Ã-Þ][\u0080-\u009f¡-ª¬-¿–—“”…€‚ƒ„†‡ˆ‰Š‹ŒŽžŸšœ•˜](?=[a-zß-ÿ])"
    rf"|â[€‚„†‡ˆ‰‹œŸ¬¢\u0080-\u009f][{_TRAIL}]|ðŸ|ï»¿"
    # read as an old Macintosh's or a DOS encoding: √© and ‚Äô, ├⌐ and ΓÇÖ
    r"|‚Ä[ôúùìî¶¢û]|(?<=[a-z])√[©´§∂º¶®ß±†¥ª∏≥≠™]|√[©´§∂º¶®ß](?=[a-z])|ΓÇ[ÖöÖ£ÿªô¥]|[├┬][⌐½╢╝║ƒ▒ñóíáúº»¬¿▓]"
)
# What all evidence begins with; this is much faster to look for.
SUSPECT = re.compile(r"[Â-Þâðï√‚Γ├┬][^\x00-\x7f]")
WELL_ENCODED = re.compile(f"(?:{MOJIBAKE.pattern})|([^\\W\\x00-\\x7f]|[‘’“”])")
INVISIBLE = {"\u00ad": "", "\u200b": "", "\u2060": "", "\ufeff": "", "\u200e": "", "\u200f": "", SPACE: "_"}
_CONTROL = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
CONTROL = re.compile(f"[{_CONTROL}]")
# VT, FF and NEL end a line; FS, GS, RS and US part words.
WHITE_SPACE = {"\x0b": "\n", "\x0c": "\n", "\x85": "\n", **dict.fromkeys("\x1c\x1d\x1e\x1f", " ")}
LOST = re.compile(r"(?<=\w)[\x00-\x08\x0e-\x1b\x7f\x81\x8d\x8f\x90\x9d](?=\w)")  # letters that nobody knows
LOST_OR_BREAK = re.compile(r"(?<=\w)[\x00-\x08\x0b\x0c\x0e-\x1b\x7f\x81\x8d\x8f\x90\x9d](?=\w)")
REPLACEMENT = "\ufffd"
ALWAYS = str.maketrans({**INVISIBLE, **{chr(code): "" for code in range(160) if CONTROL.match(chr(code))}})
# Normalising sorts a run of combining marks by insertion. No language needs more than 30 of them (UAX #15,
# stream-safe text format), so a longer run is cut behind the thirtieth.
MARKS = re.compile(r"[^\w\s\x00-\x7f][^\w\s\x00-\x7f]{29}")
TOO_MANY_MARKS = re.compile(r"(?<=[^\w\s\x00-\x7f]{30})")
_TRANSLATED = re.compile(f"[{_CONTROL}{''.join(INVISIBLE)}]")  # the keys of `ALWAYS`
_LIGATURES = re.compile(f"[{''.join(map(chr, LIGATURES))}]")


def repair(blocks: list[str], counts: Counter[str]) -> list[str]:
    """Undo mojibake where the work has evidence of it, and take ligatures apart; both are counted.

    A block is repaired when it has evidence itself. When the work has evidence and not one letter or quote
    that is well encoded, all of it is garbled and every block is repaired.
    """
    foreign = [block for block in blocks if not block.isascii()]
    garbled = any(map(_has_evidence, foreign)) and not any(map(_is_well_encoded, foreign))
    return [block if block.isascii() else _repair_block(block, garbled, counts) for block in blocks]


def _has_evidence(block: str) -> bool:
    return bool(SUSPECT.search(block) and EVIDENCE.search(block))


def _is_well_encoded(block: str) -> bool:
    return any(match[1] for match in WELL_ENCODED.finditer(block))


def _repair_block(block: str, work_is_garbled: bool, counts: Counter[str]) -> str:
    if work_is_garbled or _has_evidence(block):
        # Of a closing quote's three bytes Windows-1252 has no sign for the last one.
        lines = [ftfy.fix_encoding(line.replace("â€\ufffd", "â€\x9d")) for line in block.split("\n")]
        repaired = "\n".join(lines)
        if repaired != block:
            counts[MOJIBAKE_KIND] += len(MOJIBAKE.findall(block)) - len(MOJIBAKE.findall(repaired))
            block = repaired
    if _LIGATURES.search(block):
        counts[LIGATURE_KIND] += len(_LIGATURES.findall(block))
        block = block.translate(LIGATURES)
    return block


def settle_control(blocks: list[str], counts: Counter[str]) -> list[str]:
    """No control character but the line break is left; what each one was is counted.

    C1 characters are those of Windows-1252; some are white space; others inside a word stand for letters that
    are lost, of which U+FFFD remains. In a work with such letters so do VT and FF inside words: fonts of TeX
    have ligatures at these places.
    """
    if not any(map(CONTROL.search, blocks)):
        return blocks
    lost = LOST_OR_BREAK if any(map(LOST.search, blocks)) else LOST
    return [_settle(block, lost, counts) if CONTROL.search(block) else block for block in blocks]


def _settle(block: str, lost: re.Pattern[str], counts: Counter[str]) -> str:
    def meant(match: re.Match[str]) -> str:
        char = match[0]
        if char in WHITE_SPACE:
            counts[SPACE_KIND] += 1
            return WHITE_SPACE[char]
        if char >= "\x80" and (known := char.encode("latin-1").decode("cp1252", "ignore")):
            counts[WINDOWS_KIND] += 1
            return known
        counts["control character"] += 1
        return ""

    block, damaged = lost.subn(REPLACEMENT, block)
    counts[DAMAGED_KIND] += damaged
    return CONTROL.sub(meant, block)


def normalise(block: str) -> str:
    """NFC, one space between words, no empty line, no control or invisible character.

    U+2581, SentencePiece's own sign for a space, becomes ``_``: the one character that it cannot give back.
    """
    if not block.isascii():
        parts = TOO_MANY_MARKS.split(block) if MARKS.search(block) else [block]
        block = "".join(unicodedata.normalize("NFC", part) for part in parts)
    if _TRANSLATED.search(block):
        block = block.translate(ALWAYS)
    lines = (" ".join(line.split()) for line in block.split("\n"))
    return "\n".join(line for line in lines if line)
