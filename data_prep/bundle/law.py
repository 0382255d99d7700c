"""What the law and its guidelines say in numbers. A template shows these; no template has a number of its own.

Sources: Regulation (EU) 2024/1689 (AI Act); Commission guidelines on the scope of the obligations for providers
of general-purpose AI models, 18 July 2025, C(2025) 5045, section 2.1; template for the public summary of
training content, 24 July 2025, C(2025) 5235, sections 1.3 and 2.3.
"""

from __future__ import annotations

from math import inf

INDICATIVE_FLOP = 1e23  # training compute from which a model that makes text counts as general-purpose
SYSTEMIC_FLOP = 1e25  # Article 51(2)
# Sizes of text between which the template lets a provider choose, with the template's words.
TEXT_SIZES = (
    (1e9, "less than 1 billion tokens"),
    (1e13, "1 billion to 10 trillion tokens"),
    (inf, "more than 10 trillion tokens"),
)


def text_size(tokens: int | None) -> str | None:
    """The template's range of a number of tokens."""
    return None if tokens is None else next(words for below, words in TEXT_SIZES if tokens < below)
