"""PDF to lines and blocks, in a process of its own: ``python -m data_prep.pdf 10000000 < work.pdf``.

A PDF is a program written by strangers. The child process has a bound on memory and time, so that a bomb or
a crash costs one work and not the build. Text comes from PDFium (pypdfium2, Apache-2.0/BSD-3-Clause).
"""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import re
import resource
import signal
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conf.errors import InputError
from conf.schema.preprocess import MEGABYTE
from data_prep.hyphens import join_cut_words, known_compounds
from data_prep.raw import Unreadable

if TYPE_CHECKING:
    from pypdfium2 import PdfTextPage

COMMAND = [sys.executable, "-m", "data_prep.pdf"]
ENDED = {signal.SIGKILL: "pdf_killed", signal.SIGXCPU: "pdf_too_slow"}  # the child, by a signal
CANNOT = 3  # the child's exit status where no PDF can be read
MEMORY_BYTES = 2 << 30
SECONDS = 120
MAX_PAGES = 2000
MAX_TEXT = 10 * MEGABYTE
EDGE_LINES = 2  # lines at the top and bottom of a page that may be running headers or page numbers
PAGE_NUMBER = re.compile(
    r"^\W*(?:p(?:age|agina)?\.?\s*)?(?:\d{1,4}|[ivxlc]{1,7})(?:\s*(?:/|of|van)\s*\d{1,4})?\W*$", re.I
)
SENTENCE_END = (".", "!", "?", ":", ";", "”", '"', ")")


@dataclass(frozen=True)
class Line:
    """A line of a page: its text and its box in points, the origin at the lower left."""

    text: str
    left: float
    bottom: float
    right: float
    top: float


def extract(data: bytes, max_text: int = MAX_TEXT) -> list[str]:
    """The blocks of a PDF.

    Args:
        data: the file.
        max_text: characters after which the child stops reading.

    Raises:
        Unreadable: ``pdf_encrypted``, ``pdf_truncated``, ``pdf_damaged``, ``pdf_too_many_pages``,
            ``pdf_too_slow``, ``pdf_too_large`` (memory), ``pdf_killed`` (often for want of memory on the
            machine), ``text_too_long`` or ``no_text`` (scanned pages).
        InputError: no PDF can be read on this machine.
    """
    if b"%PDF-" not in data[:1024]:
        raise Unreadable("pdf_damaged")
    if b"%%EOF" not in data[-2048:]:
        raise Unreadable("pdf_truncated")
    try:
        child = subprocess.run(
            [*COMMAND, str(max_text)],
            input=data,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unreadable("pdf_too_slow") from error
    if child.returncode == CANNOT:
        raise InputError(child.stderr.decode(errors="replace").strip())
    if child.returncode != 0:
        memory = b"MemoryError" in child.stderr
        raise Unreadable("pdf_too_large" if memory else ENDED.get(-child.returncode, "pdf_damaged"))
    answer = json.loads(child.stdout)
    if isinstance(answer, str):
        raise Unreadable(answer)
    return answer


def read_pages(data: bytes, max_text: int) -> list[list[Line]]:
    """The lines of every page, from top to bottom."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        raise Unreadable("pdf_encrypted" if "password" in str(error).lower() else "pdf_damaged") from error
    if len(document) > MAX_PAGES:
        raise Unreadable("pdf_too_many_pages")
    pages, size = [], 0
    for number in range(len(document)):
        page = document[number]
        text = page.get_textpage()
        size += text.count_chars()
        if size > max_text:
            raise Unreadable("text_too_long")
        pages.append(_join_pieces(_pieces(text)))
        text.close()
        page.close()
    return pages


def _pieces(page: PdfTextPage) -> Iterator[Line]:
    """The characters between two line breaks, with the box around their ink.

    Taken by index: the text within an area would also hold letters of other lines that reach into it. PDFium
    marks most line breaks, but none at a hyphen and none where accents reach into the line above.
    """
    from pypdfium2 import raw

    edges = [ctypes.c_double() for _ in range(4)]
    addresses = [ctypes.byref(edge) for edge in edges]
    text: list[str] = []
    boxes: list[tuple[float, ...]] = []
    for index in range(page.count_chars()):
        char = chr(raw.FPDFText_GetUnicode(page, index))
        inked = not char.isspace() and raw.FPDFText_GetCharBox(page, index, *addresses)
        box = tuple(edge.value for edge in edges)
        below = inked and boxes and _is_below(box, boxes[-1]) and _is_upright(page, index)
        if char in "\r\n" or below:
            yield from _piece(text, boxes)
            text, boxes = [], []
        if char != "\0":  # a glyph of which the file does not say what it means
            text.append(char)
            if inked:
                boxes.append(box)
    yield from _piece(text, boxes)


def _is_below(box: tuple[float, ...], before: tuple[float, ...]) -> bool:
    """Whether a character begins a line below that of the one before; boxes are left, right, bottom, top."""
    return box[0] < before[0] and (box[2] + box[3]) / 2 < before[2]


def _is_upright(page: PdfTextPage, index: int) -> bool:
    """Whether a character stands upright; in a text that reads downwards each is below the one before."""
    from pypdfium2 import raw

    return math.cos(raw.FPDFText_GetCharAngle(page, index)) > 0.9


def _piece(text: list[str], boxes: list[tuple[float, ...]]) -> Iterator[Line]:
    if boxes:
        left, right, bottom, top = zip(*boxes, strict=True)
        yield Line(_whole("".join(text)), min(left), min(bottom), max(right), max(top))


def _whole(text: str) -> str:
    """Characters that PDFium gives as two halves (UTF-16) put together."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _join_pieces(pieces: Iterable[Line]) -> list[Line]:
    """Pieces that stand beside each other as one line; PDFium breaks it at raised and lowered characters."""
    lines: list[Line] = []
    last: Line | None = None  # the piece before, by itself: a drop cap reaches down to lines that follow
    for piece in pieces:
        if last and min(last.top, piece.top) - max(last.bottom, piece.bottom) > 0.5 * min(
            last.top - last.bottom, piece.top - piece.bottom
        ):
            line = lines[-1]
            space = "" if piece.left - last.right < 0.25 * (piece.top - piece.bottom) else " "
            lines[-1] = Line(
                line.text + space + piece.text, min(line.left, piece.left),
                min(line.bottom, piece.bottom), max(line.right, piece.right), max(line.top, piece.top),
            )  # fmt: skip
        else:
            lines.append(piece)
        last = piece
    return [Line(" ".join(line.text.split()), line.left, line.bottom, line.right, line.top) for line in lines]


def blocks_of_pages(pages: list[list[Line]]) -> list[str]:
    """Paragraphs without running headers and page numbers, hyphens at line ends taken out."""
    furniture = _furniture(pages)
    blocks: list[list[str]] = []
    for page in pages:
        lines = [
            line
            for place, line in enumerate(page)
            if EDGE_LINES <= place < len(page) - EDGE_LINES
            or not (PAGE_NUMBER.match(line.text) or _shape(line.text) in furniture)
        ]
        paragraphs = _paragraphs(lines)
        goes_on = (
            blocks
            and paragraphs
            and not blocks[-1][-1].endswith(SENTENCE_END)
            and paragraphs[0][0][:1].islower()
        )
        if goes_on:  # a paragraph that runs over the page
            blocks[-1] += paragraphs.pop(0)
        blocks += paragraphs
    known = known_compounds(blocks)
    texts = ["\n".join(join_cut_words(block, known)) for block in blocks]
    return [text.replace("\ufffe", "-").replace("\x02", "-") for text in texts]


def _shape(text: str) -> str:
    return re.sub(r"\d+", "#", text).strip().lower()


def _furniture(pages: list[list[Line]]) -> set[str]:
    """Lines at the edges of pages that come back on a third of them, whatever numbers they hold."""
    seen: Counter[str] = Counter()
    for page in pages:
        seen.update({_shape(line.text) for line in page[:EDGE_LINES] + page[-EDGE_LINES:]})
    least = max(3, len(pages) // 3)
    return {shape for shape, count in seen.items() if count >= least}


def _paragraphs(lines: list[Line]) -> list[list[str]]:
    """Cut where the space above a line is larger than usual, or after a short line that ends a sentence."""
    if not lines:
        return []
    gaps = [above.bottom - below.top for above, below in itertools.pairwise(lines)]
    usual = statistics.median(gaps) if gaps else 0.0
    height = statistics.median(line.top - line.bottom for line in lines)
    width = max(line.right for line in lines) - min(line.left for line in lines)
    result = [[lines[0].text]]
    for (above, below), gap in zip(itertools.pairwise(lines), gaps, strict=True):
        short = above.right < max(line.right for line in lines) - 0.2 * width
        if gap > usual + 0.5 * height or (short and above.text.endswith(SENTENCE_END)):
            result.append([])
        result[-1].append(below.text)
    return result


def _limit(kind: int, value: int) -> None:
    """Set a limit for good, or keep a lower one; one more until SIGKILL leaves time for SIGXCPU."""
    hard = resource.getrlimit(kind)[1]
    most = value + 1 if hard == resource.RLIM_INFINITY else min(value + 1, hard)
    resource.setrlimit(kind, (min(value, most), most))


def main() -> int:
    """Read a PDF on stdin; write a JSON list of blocks, or a reason as a JSON string."""
    try:
        import pypdfium2  # noqa: F401
    except ImportError as error:
        sys.stderr.write(f"PDFs cannot be read here: {error}")
        return CANNOT
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_CPU, SECONDS)
    _limit(resource.RLIMIT_FSIZE, 0)  # nothing is written to any file
    try:
        blocks = blocks_of_pages(read_pages(sys.stdin.buffer.read(), int(sys.argv[1])))
        answer: list[str] | str = blocks or "no_text"
    except Unreadable as error:
        answer = error.reason
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
