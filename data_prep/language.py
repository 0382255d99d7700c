"""Which language a document is in, by its function words.

A document has thousands of words, so the share of function words settles it: running text of a language
holds 25-50% of its own list and a few percent of another's.
"""

from __future__ import annotations

import re
from collections import Counter

WORD = re.compile(r"[^\W\d_]+")
LEAST_SHARE = 0.12  # of all words; below it, it is none of the known languages, or tables and formulas
FUNCTION_WORDS = {
    "nl": "de het een en van in is dat op te zijn met voor niet aan er om ook als dan maar bij uit nog "
    "wordt door over naar deze die of heeft was worden kan zij hij ze wel tot hun meer geen onder "
    "tussen omdat waar werd",
    "en": "the of and to in is that for as with on by are this be from at which it not or an was were has "
    "have their these can between more than but they also its been will may such other who there into "
    "we",
    "de": "der die das und ist nicht ein eine mit von zu den dem im auf für sich des auch als wird werden "
    "bei oder aus durch nach sie es wie zur zum über sind einer haben dass kann noch",
    "fr": "le la les des et est que qui dans pour une pas sur par au avec ce il sont plus ne se aux cette "
    "leur ont être du ou mais comme elle ces entre",
    "es": "el la los las del que y en es por con para una se no su al lo como más pero sus este entre ser "
    "está también fue son sobre",
    "pt": "o os as da do das dos que e em é um uma para com não por mais como se na no ao foi são sua entre "
    "também",
    "it": "il lo la gli le di che e è un una per con non del della dei delle nel sono come più anche alla "
    "si da al",
}
_LISTS = {language: frozenset(words.split()) for language, words in FUNCTION_WORDS.items()}


def identify(text: str) -> str:
    """``nl``, ``en`` or ``other``.

    Args:
        text: a document; from a long one the first 20,000 words decide.
    """
    words = Counter(match[0] for _, match in zip(range(20_000), WORD.finditer(text.lower()), strict=False))
    total = sum(words.values())
    shares = {
        language: sum(count for word, count in words.items() if word in known) / max(total, 1)
        for language, known in _LISTS.items()
    }
    best = max(shares, key=shares.__getitem__)
    return best if best in ("nl", "en") and shares[best] >= LEAST_SHARE else "other"
