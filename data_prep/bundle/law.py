"""What the law and its guidelines say in numbers; a template shows these and has no number of its own.

Sources: Regulation (EU) 2024/1689 (AI Act); the Commission's guidelines on the scope of the obligations for
providers of general-purpose AI models, July 2025, section 2.1; the Commission's template for the public
summary of training content, July 2025, section 1.3.
"""

from __future__ import annotations

from math import inf

INDICATIVE_FLOP = 1e23  # training compute from which a model that makes text counts as general-purpose
# Sizes of text between which the template lets a provider choose, with the template's words.
TEXT_SIZES = (
    (1e9, "less than 1 billion tokens"),
    (1e13, "1 billion to 10 trillion tokens"),
    (inf, "more than 10 trillion tokens"),
)


def text_size(tokens: int | None) -> str | None:
    """The template's range of a number of tokens."""
    return None if tokens is None else next(words for below, words in TEXT_SIZES if tokens < below)
