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
from data_prep.text_encoding import decoded

JOINED = "line joined"
PATH = re.compile(r"(?<![A-Za-z])[A-Za-z]:\\\S*|(?<!\S)\\\\\w\S*")
LATEX = r"\\n(?:abla|oindent|onumber|ewline|ewcommand|ewpage|ewtheorem|ormalfont|ormalsize|ocite|opagebreak"
LATEX += r"|subseteq|leq|geq|earrow|warrow)(?![a-z])"
CODE = r"\\n(?=[\"'`]+[\s),;])"
NO_BREAK = re.compile(f"{LATEX}|{CODE}")
COMMAND = re.compile(r"\\(?!n)[a-zA-Z]{2,}")
# A command of LaTeX, or a line that begins so.
AMBIGUOUS = re.compile(r"\\n(?:e|i|u|eq|eg|ot|um|ode|mid|left|right)(?![a-z])")
LINE_BREAK = re.compile(r"\r+\n|\r|\u2028")
# A form feed between lines or sentences; one inside a word stands for a letter (see `characters.py`).
PAGE_BREAK = re.compile(r"(?:(?<=[\s.!?])|^)\x0c|\x0c(?=\s)")
NARROW, WIDE = 40, 200  # characters in a line of a hard-wrapped file, at its fullest
# Shares of the lines with a next line that are full: its first word would not have fitted. Lists and tables
# have few such lines; lines that have an empty line between them must show more.
FULL_SHARE, FULL_SHARE_SPACED = 0.5, 0.7
LONG_SHARE = 0.2  # of a file's characters, at most, in lines that are half as long again as the others
LEAST_LINES = 4
# Lines that were broken at other places than a margin: this share of the words is in lines of fewer than
# `SHORT_LINE` words, which by themselves are no text to learn from. Less is enough with empty lines between
# groups of lines.
SHORT_LINE, BROKEN_SHARE, BROKEN_SHARE_GROUPED = 25, 0.5, 0.2
LEAST_WORDS, LEAST_LETTERS = (
    5,
    0.9,
)  # in the middle one of the lines, and among the characters, of running text
PACKED = 60  # words from which a block without an empty line behind it may end, with a sentence
SENTENCE_END = (".", "!", "?", ":", "”", '"', ")")


def text_blocks(data: bytes, counts: Counter[str] | None = None) -> list[str]:
    """The blocks of a text file, with real line breaks in them.

    Args:
        data: the file.
        counts: the lines that are joined to a paragraph are counted here.

    Raises:
        Unreadable: in an unknown encoding, or binary data (NUL bytes).
    """
    counts = Counter() if counts is None else counts
    text = decoded(data, counts).removeprefix("\ufeff")
    lines = PAGE_BREAK.sub("\n", LINE_BREAK.sub("\n", text)).split("\n")
    if "\\n" in text and _has_written_breaks(text):
        return [_broken(line) for line in lines if line.strip()]
    width = _wrap_width(lines, FULL_SHARE)
    if width is None and _is_double_spaced(lines):
        lines = _single_spaced(lines)
        width = _wrap_width(lines, FULL_SHARE_SPACED)
    if width is not None:
        return _paragraphs(lines, width, counts)
    groups = _groups(lines)
    if _is_broken_up(groups):
        return _gathered(groups, counts)
    return [line for group in groups for line in group]


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


def _is_broken_up(groups: list[list[str]]) -> bool:
    """Whether much of a text is in lines too short for a paragraph."""
    sizes = [len(line.split()) for group in groups for line in group]
    grouped = sum(len(group) > 1 for group in groups) > len(groups) / 2 > LEAST_LINES / 2
    least = BROKEN_SHARE_GROUPED if grouped else BROKEN_SHARE
    return sum(size for size in sizes if size < SHORT_LINE) > least * sum(sizes)


def _gathered(groups: list[list[str]], counts: Counter[str]) -> list[str]:
    """The blocks of a text whose lines end anywhere, as at each sentence, clause or utterance.

    Empty lines part paragraphs where these are long enough for that. Where they are not, and in a text
    without empty lines, lines of running text are put together until a sentence ends. Others stay apart.

    Args:
        groups: the filled lines between empty ones.
        counts: the lines that are joined are counted here.
    """
    words = [sum(len(line.split()) for line in group) for group in groups]
    if sum(size for size in words if size >= SHORT_LINE) <= BROKEN_SHARE * sum(words) or len(groups) == 1:
        filled = [line for group in groups for line in group]
        groups = _packed(filled) if _is_running_text(filled) else [[line] for line in filled]
    known = known_compounds(groups)
    vocabulary = {word for group in groups for line in group for word in re.findall(r"\w+", line.lower())}
    counts[JOINED] += sum(len(group) - 1 for group in groups)
    return [_flowing(join_cut_words([line.strip() for line in group], known, vocabulary)) for group in groups]


def _groups(lines: list[str]) -> list[list[str]]:
    """The filled lines between empty ones."""
    return [list(group) for full, group in itertools.groupby(lines, lambda line: bool(line.strip())) if full]


def _is_running_text(filled: list[str]) -> bool:
    sizes = sorted(len(line.split()) for line in filled)
    text = "".join("".join(line.split()) for line in filled)
    letters = sum(map(str.isalpha, text))
    return sizes[len(sizes) // 2] >= LEAST_WORDS and letters >= LEAST_LETTERS * len(text)


def _packed(filled: list[str]) -> list[list[str]]:
    """Lines put together; a block ends with a sentence, and has at least `PACKED` words."""
    groups: list[list[str]] = [[]]
    size = 0
    for line in filled:
        groups[-1].append(line)
        size += len(line.split())
        if size >= PACKED and line.rstrip().endswith(SENTENCE_END):
            groups.append([])
            size = 0
    return [group for group in groups if group]


def _flowing(lines: list[str]) -> str:
    """One text; a line that goes on in small letters follows behind a space, others behind a line break."""
    parts = [lines[0]]
    for line in lines[1:]:
        parts += " " if line[:1].islower() else "\n", line
    return "".join(parts)


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
    groups = _groups(lines)
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
