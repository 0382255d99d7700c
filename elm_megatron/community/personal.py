"""Whether a text has personal data, by the rules of data preparation; nothing of what is found is kept."""

from __future__ import annotations

from conf.schema.preprocess import RedactConfig
from data_prep.redact import redact


def kinds(text: str) -> list[str]:
    """The kinds of personal data in a text (email, phone, iban …), sorted; [] is none."""
    _, counts = redact(text.split("\n"), RedactConfig(cover_names=False))
    return sorted(kind for kind, count in counts.items() if count)
