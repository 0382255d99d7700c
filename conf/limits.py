"""What a value may be beyond its type, written beside its key: `lr: Annotated[float, Within(gt=0)]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Within:
    """A number's range. `allowed` replaces the words made from the bounds."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    allowed: str = ""

    def refusal(self, value: float) -> str | None:
        """What is wrong with a value ("=0: must be at least 1"), or None; NaN is outside of every range."""
        bounds = (
            (self.ge, "at least", lambda bound: value >= bound),
            (self.gt, "above", lambda bound: value > bound),
            (self.le, "at most", lambda bound: value <= bound),
            (self.lt, "below", lambda bound: value < bound),
        )
        given = [(bound, words, good) for bound, words, good in bounds if bound is not None]
        if all(good(bound) for bound, _, good in given):
            return None
        return f"={value}: must be {self.allowed or ' and '.join(f'{w} {b:g}' for b, w, _ in given)}"


@dataclass(frozen=True)
class Fits:
    """A pattern for the whole of a text, and what it allows in words.

    `quoted`: a YAML file must write the text in quotes, since YAML takes it for a number of another meaning.
    """

    pattern: str
    allowed: str
    quoted: bool = False

    def refusal(self, value: str) -> str | None:
        """What is wrong with a value, or None."""
        return None if re.fullmatch(self.pattern, str(value)) else f"={value!r}: must be {self.allowed}"


Count = Annotated[int, Within(ge=1)]
Natural = Annotated[int, Within(ge=0)]
Positive = Annotated[float, Within(gt=0)]
NotNegative = Annotated[float, Within(ge=0)]
Share = Annotated[float, Within(gt=0, lt=1)]
BelowOne = Annotated[float, Within(ge=0, lt=1)]
Seed = Annotated[int, Within(ge=0, lt=2**32, allowed="at least 0 and below 2**32")]
