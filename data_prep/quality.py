"""Rules on a whole document, each a reason of its own.

They follow Gopher's (Rae et al. 2021, table A1) where those make sense for theses: word length, symbols,
repeated lines. The numbers stand in the configuration.
"""

from __future__ import annotations

from collections import Counter

from conf.schema.preprocess import QualityConfig

COMMON = frozenset(" \n.,;:!?()[]'\"-–—/%&’‘“”…€$+=<>*")


def reason_to_drop(text: str, config: QualityConfig, damaged: int = 0) -> str:
    """The first rule that a document breaks, or "".

    Args:
        text: the document.
        config: the bounds.
        damaged: letters of the work that are lost (see `characters.settle_control`).

    Returns:
        ``damaged``, ``too_short``, ``mean_word_length``, ``symbols``, ``digits``, ``repetition`` or "".
    """
    words = text.split()
    if config.max_damaged_share is not None and damaged > config.max_damaged_share * len(words):
        return "damaged"
    if config.min_words is not None and len(words) < config.min_words:
        return "too_short"
    mean = sum(map(len, words)) / max(len(words), 1)
    if config.min_mean_word is not None and mean < config.min_mean_word:
        return "mean_word_length"
    if config.max_mean_word is not None and mean > config.max_mean_word:
        return "mean_word_length"
    size, chars = max(len(text), 1), Counter(text)
    if config.max_symbol_share is not None:
        plain = sum(count for char, count in chars.items() if char in COMMON or char.isalnum())
        if 1 - plain / size > config.max_symbol_share:
            return "symbols"
    if config.max_digit_share is not None:
        digits = sum(count for char, count in chars.items() if char.isdigit())
        if digits / size > config.max_digit_share:
            return "digits"
    lines = [line for line in text.split("\n") if line]
    if config.max_repeated_share is not None and len(lines) >= 10:
        repeated = 1 - len(set(lines)) / len(lines)
        if repeated > config.max_repeated_share:
            return "repetition"
    return ""
