"""The pages of one harvest of a list: whether it goes on, and whether its end is one.

A pass over a list ends well only with a witness: an answer of the protocol without a token, and as many
records as the server said that there are. A list that repeats itself, or has nothing but empty pages, ends
with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from data_prep.oai import Answer, Damaged

EMPTY_PAGES = 5  # one after another, of which some servers have a few
MISSING = 0.01  # share of records by which a server may be wrong about how many there are


@dataclass
class Listing:
    """What was seen of a list so far.

    Attributes:
        listed: records, those of earlier calls of a pass that goes on too.
        size: records that the server says there are, or None.
    """

    listed: int = 0
    size: int | None = None
    _tokens: set[str] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)
    _empty: int = 0

    def add(self, answer: Answer) -> None:
        """Count a page.

        Raises:
            Damaged: ``endless_list``, ``repeated_page``, ``empty_pages`` or ``list_too_short``.
        """
        identifiers = {record.header.identifier or "" for record in answer.records}
        count = len(answer.records) + len(answer.lost)
        self.size = answer.size or self.size
        if count and not answer.lost and identifiers and identifiers <= self._seen:
            raise Damaged("repeated_page")
        self._seen |= identifiers
        self.listed += count
        self._empty = 0 if count else self._empty + 1
        if answer.token is None:
            if self.size is not None and self.listed < (1 - MISSING) * self.size:
                raise Damaged(f"list_too_short_{self.listed}_of_{self.size}")
            return
        if answer.token in self._tokens:
            raise Damaged("endless_list")
        if self._empty >= EMPTY_PAGES:
            raise Damaged("empty_pages")
        self._tokens.add(answer.token)
