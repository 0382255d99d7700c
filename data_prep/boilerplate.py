"""Blocks that say nothing of the work: covers, tables of contents, declarations, reference lists."""

from __future__ import annotations

import re

from data_prep.cover import BY_LINE, COVER_BLOCKS, COVER_LINE

# The last dots of a run are enough, and white space is one space by now: so the time stays linear.
CONTENTS_LINE = re.compile(r"(?:\.{3}|(?:\. ){3}|…|\s)\s?(?:\d{1,3}|[ivxl]{1,6})$")
NUMBER_AT_END = 13  # characters that `CONTENTS_LINE` takes at most
CONTENTS_HEAD = re.compile(
    r"^\W*(?:table of contents|contents|inhoud(?:sopgave)?|list of (?:tables|figures))\W*$", re.I
)
# What only a declaration says, and what other text says as well.
STRONG = re.compile(
    r"copyright of the (?:master|bachelor)?\s*thesis rests with|"
    r"hereby declare that (?:this|the) (?:thesis|work)|"
    r"verklaar (?:hierbij|ik) dat|(?<![\"'“‘])no part of this (?:publication|thesis) may be reproduced|"
    r"(?<![\"'“‘])niets uit deze uitgave mag|"
    r"(?:non-?plagiarism statement|statement of originality)|"
    r"auteursrecht(?:en)? (?:van|op) (?:deze|de|dit) [\w-]{1,20} (?:be)?rust|"
    r"(?:ondergetekenden? verkla|auteurs? verkla|(?:students?|authors?) who declares?|authors? declares?)\w*"
    r" (?:hierbij |hereby )?"
    r"(?:(?:dat|that) (?:dit|deze|this|the text|de tekst|het werk|all|alle)|to (?:have written|take))|"
    r"this (?:work|thesis|document) is licen[sc]ed under|"
    r"views (?:stated|expressed) in this (?:thesis|paper|document) are those of the author|"
    r"this (?:document|thesis|report) is (?:strictly )?confidential and",
    re.I,
)
WEAK = re.compile(
    r"all rights reserved(?! (?:to|for|by|in) )|alle rechten voorbehouden|reuse guidelines|"
    r"creative commons attribution|downloaded from|(?<!in )terms of use",
    re.I,
)
WORDS = ("rights", "rechten", "declare", "verklaar", "reproduced", "uitgave", "guidelines", "attribution")
WORDS += ("downloaded", "terms of use", "rests with", "plagiarism", "originality", "auteursrecht", "licensed")
WORDS += ("licenced", "views ", "confidential")  # each phrase has one
SECOND_SIGN = re.compile(
    r"©|\(c\) ?\d{4}|\bcopyright (?:©|\(c\)|\d{4})|\b(?:signature|handtekening|signed|ondertekend)\b|"
    r"own (?:work|responsib)|eigen werk|plagiar|plagiaat|(?:prior )?written permission|"
    r"schriftelijke toestemming|sources? (?:other than|that (?:is|are) not)",
    re.I,
)
REFERENCES = re.compile(
    r"^\W*(?:\d+\.?\s*|[IVX]+\.\s*)?(?:references|reference list|bibliography|works cited|literature|"
    r"literatuur(?:lijst)?|bronnen(?:lijst)?|referenties|bibliografie)\W*$",
    re.I,
)
APPENDIX = re.compile(r"^\W*(?:appendi(?:x|ces)|bijlagen?)\b", re.I)
STUDENT = "[student number]"  # a cover is redacted before
DECLARATION_WORDS = 120  # a declaration is short; a longer block only mentions the words
LAST_BLOCKS = 4  # of a work, where a declaration or a licence may be as well
EVIDENCE = 3  # points that make a declaration; see `_is_declaration`


def drop_boilerplate(blocks: list[str]) -> list[str]:
    """The reason for which each block goes (``cover``, ``contents``, ``declaration``), or "" to keep it."""
    reasons = []
    for place, block in enumerate(blocks):
        lines = block.split("\n")
        if place < COVER_BLOCKS and _is_cover(lines):
            reasons.append("cover")
        elif _is_contents(lines):
            reasons.append("contents")
        elif _is_declaration(block, place < COVER_BLOCKS or place >= len(blocks) - LAST_BLOCKS):
            reasons.append("declaration")
        else:
            reasons.append("")
    return reasons


def _is_cover(lines: list[str]) -> bool:
    """Two labelled lines of a cover, and no running text after them."""
    labels = sum(bool(COVER_LINE.match(line) or BY_LINE.match(line) or STUDENT in line) for line in lines)
    return labels >= 2 and len(" ".join(lines).split()) < 150


def _is_declaration(block: str, at_the_edge: bool) -> bool:
    """Whether a short block is a declaration, by points; a phrase alone is not enough.

    A strong phrase gives 2 points, a weak one 1. More come from a place at the edge of the work (1), a block
    that begins with the phrase (1) or of which the phrases are a quarter (2), and each other sign (1).
    """
    lower = block.lower()
    if not any(word in lower for word in WORDS):
        return False
    strong, weak = list(STRONG.finditer(block)), list(WEAK.finditer(block))
    phrases = strong + weak
    if not phrases or len(block.split()) > DECLARATION_WORDS:
        return False
    points = 2 * bool(strong) + len({match[0].lower() for match in weak}) + at_the_edge
    points += not block[: min(match.start() for match in phrases)].strip(" \n\"'“‘*•-")
    points += 2 * (sum(len(match[0]) for match in phrases) >= len(block) / 4)
    return points + bool(SECOND_SIGN.search(block)) >= EVIDENCE


def _is_contents(lines: list[str]) -> bool:
    """A heading that says so with lines that end in numbers, or many such lines."""
    head = bool(CONTENTS_HEAD.match(lines[0]))
    if not head and len(lines) < 5:
        return False
    numbered = sum(bool(CONTENTS_LINE.search(line, max(0, len(line) - NUMBER_AT_END))) for line in lines)
    return (head and numbered >= 2) or (len(lines) >= 5 and numbered >= 0.7 * len(lines))


def reference_blocks(blocks: list[str]) -> range:
    """The places of the reference list: from its heading in the second half to an appendix or the end."""
    for place in range(len(blocks) - 1, len(blocks) // 2 - 1, -1):
        if REFERENCES.match(blocks[place].split("\n")[0]):
            end = place + 1
            while end < len(blocks) and not APPENDIX.match(blocks[end]):
                end += 1
            return range(place, end)
    return range(0)
