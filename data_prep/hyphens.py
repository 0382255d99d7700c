"""Words that the end of a line cut, made whole again."""

from __future__ import annotations

import re
from collections.abc import Iterable

HYPHENS = "-\u00ad\u2010\ufffe\x02"  # PDFium gives U+FFFE for the hyphen at the end of a line
# Behind a hyphen that stands for a part of the next word: "voor- en nadelen", "short- and long-term".
CONJUNCTION = re.compile(
    r"(?:en|of|noch|tot|dan|als|maar|versus|vs|respectievelijk|resp|and|or|nor|to|but|through|und|oder|bis)"
    r"(?:/(?:of|or))?(?!\w)"
)


def known_compounds(blocks: Iterable[list[str]]) -> set[str]:
    """The words with a hyphen inside a line, in small letters."""
    return {word.lower() for block in blocks for line in block for word in re.findall(r"\w+-\w+", line)}


def join_cut_words(lines: list[str], compounds: set[str], words: set[str] | None = None) -> list[str]:
    """The lines of a block, in which each cut word is whole and in the line where it begins.

    Args:
        lines: of one block.
        compounds: words whose hyphen stays.
        words: where given, only these words lose their hyphen: plain text files are mostly broken at the
            hyphens of compounds, PDFs at syllables.
    """
    result = [lines[0]]
    for line in lines[1:]:
        previous = result[-1]
        cut = len(previous) > 1 and previous[-1] in HYPHENS and previous[-2].isalpha() and line[:1].islower()
        if not cut or CONJUNCTION.match(line):
            result.append(line)
            continue
        head, _, rest = line.partition(" ")
        left = re.search(r"\w+$", previous[:-1])
        right = re.match(r"\w+", head)
        halves = (left[0].lower(), right[0].lower()) if left and right else ("", "")
        stays = "-".join(halves) in compounds or (words is not None and "".join(halves) not in words)
        result[-1] = previous[:-1] + ("-" if stays else "") + head
        if rest:
            result.append(rest)
    return result
