"""Which language a document is in, by py3langid (BSD-3-Clause), which works offline and knows 97 languages.

It knows the neighbours of Dutch too: Afrikaans, Frisian, German, Danish, Norwegian, Swedish, Luxembourgish.
It names a language for tables and formulas as well, so a document in Dutch or English must also have some of
that language's function words.
"""

from __future__ import annotations

import re
from collections import Counter

import py3langid

PIECE, PIECES = 2_000, 5  # characters looked at, and in how many places of a long document
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
LEAST_SHARE = 0.06  # of all words; running text has 25-50%, clipped notes 15%, a table less than 3%
FUNCTION_WORDS = {
    "nl": "de het een en van in is dat op te zijn met voor niet aan er om ook als dan maar bij uit nog "
    "wordt door over naar deze die of heeft was worden kan zij hij ze wel tot hun meer geen onder "
    "tussen omdat waar werd ik je we mijn",
    "en": "the of and to in is that for as with on by are this be from at which it not or an was were has "
    "have their these can between more than but they also its been will may such other who there into "
    "we i you he she my me a what how why about him her had no so",
}
_LISTS = {language: frozenset(words.split()) for language, words in FUNCTION_WORDS.items()}


def identify(text: str) -> str:
    """``nl``, ``en`` or ``other``.

    Args:
        text: a document; of a long one `PIECES` places are looked at, and most of them decide.
    """
    if len(text) <= PIECE * PIECES:
        pieces = [text]
    else:
        step = (len(text) - PIECE) // (PIECES - 1)
        pieces = [text[place * step : place * step + PIECE] for place in range(PIECES)]
    return Counter(map(_identify_piece, pieces)).most_common(1)[0][0]


def _identify_piece(text: str) -> str:
    language, _ = py3langid.classify(text)
    if language not in _LISTS:
        return "other"
    words = WORD.findall(text.lower())
    known = sum(word in _LISTS[language] for word in words)
    return language if words and known >= LEAST_SHARE * len(words) else "other"
