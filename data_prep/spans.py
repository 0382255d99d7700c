"""Places in a text that are replaced by a placeholder."""

from __future__ import annotations

from collections.abc import Iterator

Span = tuple[int, int]


def replace(text: str, spans: Iterator[Span] | list[Span], placeholder: str) -> tuple[str, int]:
    """A text with a placeholder in place of each span, of which some may overlap; and how many it has."""
    parts, at, count = [], 0, 0
    for start, end in sorted(spans):
        if start < at:
            continue
        parts += text[at:start], placeholder
        at, count = end, count + 1
    return ("".join([*parts, text[at:]]), count) if count else (text, 0)
