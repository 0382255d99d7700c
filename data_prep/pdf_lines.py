"""A PDF to the lines of its pages, by PDFium (pypdfium2, Apache-2.0/BSD-3-Clause).

The text of a page is asked for at once, and the boxes line by line: asking for every character takes ten
times as long. Single characters are looked at only where PDFium's lines are not those of the page.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from data_prep.pdf_columns import Line, in_reading_order, is_across, without_line_numbers
from data_prep.raw import Unreadable

if TYPE_CHECKING:
    from pypdfium2 import PdfTextPage

MAX_PAGES = 2000
SAMPLE = 24  # characters of a page whose direction is asked for
OTHER = 3  # heights of a line: something else than text beside it
WIDE = 1.5  # heights of a line: a gap between columns
Box = tuple[float, float, float, float]  # left, right, bottom, top


def read_pages(data: bytes, max_text: int) -> list[list[Line]]:
    """The lines of every page, from top to bottom.

    Raises:
        Unreadable: ``pdf_encrypted``, ``pdf_truncated``, ``pdf_damaged``, ``pdf_too_many_pages`` or
            ``text_too_long``.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Unreadable("pdf_encrypted") from error
        raise Unreadable("pdf_truncated" if is_cut(data) else "pdf_damaged") from error
    if is_cut(data):  # PDFium gives what is there, as if it were all
        raise Unreadable("pdf_truncated")
    if len(document) > MAX_PAGES:
        raise Unreadable("pdf_too_many_pages")
    pages, size = [], 0
    for number in range(len(document)):
        page = document[number]
        text = page.get_textpage()
        size += text.count_chars()
        if size > max_text:
            raise Unreadable("text_too_long")
        pieces = without_line_numbers(_top_down(list(PageText(text).pieces())))
        pages.append(_join_pieces(in_reading_order(pieces)))
        text.close()
        page.close()
    document.close()
    return pages


def is_cut(data: bytes) -> bool:
    """Whether the end of a PDF is missing; what follows its end (NULs, HTML) does not matter."""
    linearized = re.search(rb"/Linearized\b[^>]{0,200}?/L\s+(\d{1,12})", data[:2048])
    if linearized and int(linearized[1]) > len(data):
        return True
    return b"%%EOF" not in data and not re.search(rb"startxref\s+\d+", data[-2048:])


class PageText:
    """The text of one page, its boxes turned so that most of the text reads from left to right."""

    def __init__(self, page: PdfTextPage) -> None:
        """Ask for the text, and for the direction of some characters."""
        from pypdfium2 import raw

        self._page, self._raw = page, raw
        self._count = page.count_chars()
        self._edges = [ctypes.c_double() for _ in range(4)]
        self._addresses = [ctypes.byref(edge) for edge in self._edges]
        self._quarter = self._direction()

    def pieces(self) -> Iterator[Line]:
        """What stands between two line breaks or wide gaps, in the order of the file."""
        text = self._text()
        if text is None:
            yield from self._by_characters(0, self._count)
            return
        start = 0
        for run in re.split(r"[\r\n]", text):
            if run.strip():
                yield from self._run(start, run)
            start += len(run) + 1

    def _text(self) -> str | None:
        """The characters of the page, one for each index; None where PDFium's indices are others."""
        buffer = (ctypes.c_ushort * (self._count + 1))()
        written = self._raw.FPDFText_GetText(self._page, 0, self._count, buffer)
        if written != self._count + 1:
            return None
        text = bytes(memoryview(buffer).cast("B")[: 2 * self._count]).decode("utf-16-le", "surrogatepass")
        return text if len(text) == self._count and "\0" not in text else None

    def _direction(self) -> int:
        """Quarter turns, counted to the left, by which most of the text is turned."""
        step = max(1, self._count // SAMPLE)
        angles = (self._raw.FPDFText_GetCharAngle(self._page, place) for place in range(0, self._count, step))
        turns = Counter(round(angle / (math.pi / 2)) % 4 for angle in angles if angle >= 0)
        return turns.most_common(1)[0][0] if turns else 0

    def _turned(self, left: float, right: float, bottom: float, top: float) -> Box:
        if self._quarter == 1:
            return -top, -bottom, left, right
        if self._quarter == 2:
            return -right, -left, -top, -bottom
        if self._quarter == 3:
            return bottom, top, -right, -left
        return left, right, bottom, top

    def _run(self, start: int, run: str) -> Iterator[Line]:
        """A line of PDFium, whole where its rectangles follow each other without a gap."""
        boxes = list(self._rectangles(start, len(run)))
        if not boxes:
            return
        for before, box in itertools.pairwise(boxes):
            height = min(box[3] - box[2], before[3] - before[2])
            is_below = box[0] < before[1] and (box[2] + box[3]) / 2 < before[2]
            if is_below or box[0] - before[1] > WIDE * height or box[3] - box[2] > OTHER * height:
                yield from self._by_characters(start, len(run))
                return
        yield from _piece(list(run), boxes)

    def _rectangles(self, start: int, count: int) -> Iterator[Box]:
        left, top, right, bottom = self._edges
        for number in range(self._raw.FPDFText_CountRects(self._page, start, count)):
            # FPDFText_GetRect gives left, top, right, bottom
            if self._raw.FPDFText_GetRect(self._page, number, *self._addresses):
                yield self._turned(left.value, right.value, bottom.value, top.value)

    def _by_characters(self, start: int, count: int) -> Iterator[Line]:
        """The same, character by character.

        PDFium marks most line breaks, but none at a hyphen and none where accents reach into the line above.
        """
        raw, page = self._raw, self._page
        text: list[str] = []
        boxes: list[Box] = []
        for index in range(start, start + count):
            char = chr(raw.FPDFText_GetUnicode(page, index))
            inked = not char.isspace() and raw.FPDFText_GetCharBox(page, index, *self._addresses)
            box = self._turned(*(edge.value for edge in self._edges)) if inked else None
            parted = box and boxes and self._are_parted(box, boxes[-1], index)
            if char in "\r\n" or parted:
                yield from _piece(text, boxes)
                text, boxes = [], []
            if char != "\0":  # a glyph of which the file does not say what it means
                text.append(char)
                if box:
                    boxes.append(box)
        yield from _piece(text, boxes)

    def _are_parted(self, box: Box, before: Box, index: int) -> bool:
        """Whether a character begins a line below that of the one before, or another column."""
        height = before[3] - before[2]
        if box[0] - before[1] > 2 * WIDE * height:
            return True
        if box[3] - box[2] > OTHER * height and not self._reads_on(index):
            return True  # what is written across the page, as a watermark
        return _is_below(box, before) and self._reads_on(index)

    def _reads_on(self, index: int) -> bool:
        """Whether a character stands as most do; in text that reads downwards each is below another."""
        angle = self._raw.FPDFText_GetCharAngle(self._page, index) - self._quarter * math.pi / 2
        return math.cos(angle) > 0.9


def _top_down(pieces: list[Line]) -> list[Line]:
    """The pieces of a page; PDFium gives those of a text that reads downwards last line first."""
    rising = sum(before.top < piece.bottom for before, piece in itertools.pairwise(pieces))
    return pieces[::-1] if len(pieces) > 2 and rising > 0.8 * (len(pieces) - 1) else pieces


def _is_below(box: Box, before: Box) -> bool:
    return box[0] < before[0] and (box[2] + box[3]) / 2 < before[2]


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
        if (
            last
            and not is_across(last, piece)
            and min(last.top, piece.top) - max(last.bottom, piece.bottom)
            > 0.5 * min(last.top - last.bottom, piece.top - piece.bottom)
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
