r"""The layout of text files: which lines are blocks.

EUR publishes one file per work and one line per block. In a block the two characters ``\`` ``n`` stand for a
line break of the original page. Other files have lines of some 80 characters and an empty line between
paragraphs. Which one a file has is decided by the evidence in the file.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter

from data_prep.hyphens import join_cut_words, known_compounds
from data_prep.raw import Unreadable

JOINED = "line joined"
PATH = re.compile(r"(?<![A-Za-z])[A-Za-z]:\\\S*|(?<!\S)\\\\\w\S*")
LATEX = r"\\n(?:abla|oindent|onumber|ewline|ewcommand|ewpage|ewtheorem|ormalfont|ormalsize|ocite|opagebreak"
LATEX += r"|subseteq|leq|geq|earrow|warrow)(?![a-z])"
CODE = r"\\n(?=[\"'`]+[\s),;])"
NO_BREAK = re.compile(f"{LATEX}|{CODE}")
COMMAND = re.compile(r"\\(?!n)[a-zA-Z]{2,}")
# A command of LaTeX, or a line that begins so.
AMBIGUOUS = re.compile(r"\\n(?:e|i|u|eq|eg|ot|um|ode|mid|left|right)(?![a-z])")
NARROW, WIDE = 40, 132  # characters in a line of a hard-wrapped file, at its fullest
# Shares of the lines with a next line that are full: its first word would not have fitted. Lists and tables
# have few such lines; lines that have an empty line between them must show more.
FULL_SHARE, FULL_SHARE_SPACED = 0.5, 0.7
LONG_SHARE = 0.2  # of a file's characters, at most, in lines that are half as long again as the others
LEAST_LINES = 4
SENTENCE_END = (".", "!", "?", ":", "”", '"', ")")


def text_blocks(data: bytes, counts: Counter[str] | None = None) -> list[str]:
    """The blocks of a text file, with real line breaks in them.

    Args:
        data: the file.
        counts: the lines that are joined to a paragraph are counted here.

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
    if "\\n" in text and _has_written_breaks(text):
        return [_broken(line) for line in lines if line.strip()]
    width = _wrap_width(lines, FULL_SHARE)
    if width is None and _is_double_spaced(lines):
        lines = _single_spaced(lines)
        width = _wrap_width(lines, FULL_SHARE_SPACED)
    if width is None:
        return [line for line in lines if line.strip()]
    return _paragraphs(lines, width, Counter() if counts is None else counts)


def _has_written_breaks(text: str) -> bool:
    r"""Whether ``\`` ``n`` is a line break in this file, and no command of LaTeX, path or program text."""
    if _may_have_path(text):
        text = PATH.sub("", text)
    meant = text.count("\\n") - len(NO_BREAK.findall(text))
    commands = len(COMMAND.findall(text)) + len(NO_BREAK.findall(text))
    ambiguous = len(AMBIGUOUS.findall(text))
    return meant - ambiguous > 2 * commands or (meant > 0 and commands == 0 and meant > ambiguous)


def _may_have_path(text: str) -> bool:
    return ":\\" in text or "\\\\" in text


def _broken(line: str) -> str:
    paths = PATH.finditer(line) if _may_have_path(line) else ()
    kept = [match.span() for match in itertools.chain(paths, NO_BREAK.finditer(line))]

    def is_break(match: re.Match[str]) -> str:
        return match[0] if any(start <= match.start() < end for start, end in kept) else "\n"

    return re.sub(r"\\n", is_break, line) if kept else line.replace("\\n", "\n")


def _is_double_spaced(lines: list[str]) -> bool:
    """Whether each line of a text has an empty line behind it."""
    filled = [bool(line.strip()) for line in lines]
    beside = sum(one and other for one, other in itertools.pairwise(filled))
    return beside <= 0.1 * sum(filled)


def _single_spaced(lines: list[str]) -> list[str]:
    """The lines without the empty line between two; of several empty lines one is left."""
    result: list[str] = []
    for filled, group in itertools.groupby(lines, lambda line: bool(line.strip())):
        run = list(group)
        result += run if filled else run[1:2]
    return result


def _wrap_width(lines: list[str], least_share: float) -> int | None:
    """The width at which the lines of a file were wrapped, in characters; None where they were not."""
    lengths = sorted(len(line.rstrip()) for line in lines if line.strip())
    if len(lengths) <= LEAST_LINES:
        return None
    width = lengths[int(0.98 * (len(lengths) - 1))]
    long = sum(length for length in lengths if length > 1.5 * width)
    if not NARROW <= width <= WIDE or long > LONG_SHARE * sum(lengths):
        return None
    pairs = [(line, below) for line, below in itertools.pairwise(lines) if line.strip() and below.strip()]
    full = sum(_is_full(line, below, width) for line, below in pairs)
    return width if len(pairs) >= LEAST_LINES and full >= least_share * len(pairs) else None


def _is_full(line: str, below: str, width: int) -> bool:
    """Whether the first word of the line below would not have fitted into a line."""
    return len(line.rstrip()) + 1 + len(below.split(maxsplit=1)[0]) > 0.93 * width


def _paragraphs(lines: list[str], width: int, counts: Counter[str]) -> list[str]:
    """The paragraphs of a hard-wrapped file; a line that ends before the margin keeps its line break."""
    groups = [
        list(group) for full, group in itertools.groupby(lines, lambda line: bool(line.strip())) if full
    ]
    single = len(groups) == 1  # no empty lines: a paragraph ends with a sentence that ends before the margin
    known = known_compounds(groups)
    words = set(re.findall(r"\w+", " ".join(lines).lower()))
    blocks: list[str] = []
    for group in groups:
        whole = join_cut_words([line.strip() for line in group], known, words)
        paragraph = whole[0]
        for line, below in itertools.pairwise(whole):
            if _is_full(line, below, width):
                counts[JOINED] += 1
                paragraph += f" {below}"
            elif single and line.endswith(SENTENCE_END):
                blocks.append(paragraph)
                paragraph = below
            else:
                paragraph += f"\n{below}"
        blocks.append(paragraph)
    return blocks
