"""The institution's answers as the templates read them: a missing one is shown as missing and remembered."""

from __future__ import annotations

from typing import Any

from conf.schema.institution import Institution
from data_prep.markdown import Safe, one_line


class Answers:
    """Answers by key, for one document.

    Args:
        institution: the answers.
        marked: whether the document is Markdown; a missing answer is then in italics.

    Attributes:
        missing: keys that the document asked for and that have no answer, in the order of asking.
    """

    def __init__(self, institution: Institution, marked: bool = True):
        self.institution, self.marked = institution, marked
        self.missing: list[str] = []

    def __getattr__(self, key: str) -> Any:
        """The answer, or words that say which key is missing.

        Raises:
            AttributeError: the institution has no such key.
        """
        if key.startswith("_"):
            raise AttributeError(key)
        value = getattr(self.institution, key)
        return self.absent(key) if value in (None, "", []) else value

    def absent(self, key: str | None) -> str:
        """The words for a missing answer; "" for no key."""
        if key is None:
            return Safe("")
        if key not in self.missing:
            self.missing.append(key)
        return (
            Safe(f"*missing: `institution.{one_line(key)}`*")
            if self.marked
            else f"Missing: institution.{key}."
        )
