"""The lines of a PDF's pages to paragraphs: no running headers, no page numbers, cut words whole."""

from __future__ import annotations

import itertools
import re
import statistics
from collections import Counter

from data_prep.hyphens import join_cut_words, known_compounds
from data_prep.pdf_columns import Line, is_across

EDGE_LINES = 2  # lines at the top and bottom of a page that may be running headers or page numbers
PAGE_NUMBER = re.compile(
    r"^\W*(?:p(?:age|agina)?\.?\s*)?(?:\d{1,4}|[ivxlc]{1,7})(?:\s*(?:/|of|van)\s*\d{1,4})?\W*$", re.I
)
FOOTNOTE = re.compile(r"(?:\d{1,3}|[*†‡]{1,3})\s?[^\W\d_]|_{5,}$")
MOST_FOOTNOTES = 8  # of a page, its rule too
SENTENCE_END = (".", "!", "?", ":", ";", "”", '"', ")")


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
        if paragraphs and paragraphs[0][0][:1].islower() and (open_block := _unfinished(blocks)):
            open_block += paragraphs.pop(0)
        blocks += paragraphs
    known = known_compounds(blocks)
    texts = ["\n".join(join_cut_words(block, known)) for block in blocks]
    return [text.replace("\ufffe", "-").replace("\x02", "-") for text in texts]


def _unfinished(blocks: list[list[str]]) -> list[str] | None:
    """The paragraph that goes on over the page: the last one, or the one above the page's footnotes."""
    for block in blocks[: -MOST_FOOTNOTES - 2 : -1]:
        if not (block[-1].endswith(SENTENCE_END) or FOOTNOTE.match(block[0])):
            return block
        if not FOOTNOTE.match(block[0]):
            return None
    return None


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
        if (
            is_across(above, below)
            or gap > usual + 0.5 * height
            or (short and above.text.endswith(SENTENCE_END))
        ):
            result.append([])
        result[-1].append(below.text)
    return result
