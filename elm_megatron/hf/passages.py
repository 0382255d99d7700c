"""Real Dutch and English text that comes with the code, for the checks that run at every export."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

WORKS = {"nl": "06-toeval-en-verdienste.txt", "en": "03-local-news-silence.txt"}


@cache
def passages() -> dict[str, str]:
    """One work of the sample corpus per language, its line breaks restored."""
    folder = files("data_prep") / "sample"
    return {
        language: (folder / name).read_text(encoding="utf-8").replace("\\n", "\n")
        for language, name in WORKS.items()
    }
