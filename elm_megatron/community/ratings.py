"""From votes to ratings: Bradley–Terry strengths with intervals, and how far raters agree.

A tie counts half for each side; "both bad" counts for neither. Strengths are found by
minorisation-maximisation (Hunter 2004). They are shown on Elo's scale: 400 points are odds of 10, and the
mean is 1000. The 95% interval is a bootstrap over raters, not over votes, because one person's votes go
together. It is expanded for few raters (Hesterberg 2015, "What teachers should know about the bootstrap").
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDS = 400  # of the bootstrap
SCALE = 400 / np.log(10)
PRIOR = 0.1  # of a tie for each pair that met: keeps strengths finite when one side won all


@dataclass(frozen=True)
class Ballot:
    """One vote: who gave it, the two models, and how much of it the first has (1, 0.5 or 0)."""

    rater: str
    first: str
    second: str
    share: float


@dataclass(frozen=True)
class Rating:
    """A model's place.

    Attributes:
        strength: Elo points.
        low, high: 95% interval.
        votes: it took part in.
    """

    model: str
    strength: float
    low: float
    high: float
    votes: int

    @property
    def is_bounded(self) -> bool:
        """Whether there is an interval: one rater alone gives none."""
        return bool(np.isfinite(self.low))


def ratings(ballots: Sequence[Ballot], seed: int = 0) -> list[Rating]:
    """Ratings of all models, the best first."""
    models = sorted({name for ballot in ballots for name in (ballot.first, ballot.second)})
    if not models:
        return []
    place = {name: number for number, name in enumerate(models)}
    by_rater: dict[str, np.ndarray] = {}
    for ballot in ballots:
        wins = by_rater.setdefault(ballot.rater, np.zeros((len(models), len(models))))
        first, second = place[ballot.first], place[ballot.second]
        wins[first, second] += ballot.share
        wins[second, first] += 1 - ballot.share
    each = np.stack(list(by_rater.values()))
    best = strengths(each.sum(0))
    drawn = np.random.default_rng(seed)
    again = [
        strengths(each[drawn.integers(0, len(each), len(each))].sum(0))
        for _ in range(ROUNDS if len(each) > 1 else 0)
    ]
    low, high = np.percentile(again, [2.5, 97.5], axis=0) if again else (best - np.inf, best + np.inf)
    expansion = _expansion(len(each))
    low, high = best - expansion * (best - low), best + expansion * (high - best)
    votes = each.sum(0)
    found = [
        Rating(
            name,
            float(best[i]),
            float(low[i]),
            float(high[i]),
            round(float(votes[i].sum() + votes[:, i].sum())),
        )
        for name, i in place.items()
    ]
    return sorted(found, key=lambda rating: -rating.strength)


def _expansion(raters: int) -> float:
    """√(n/(n-1)) · t/z at 97.5%, with t by its expansion in 1/(n-1) (Abramowitz and Stegun, 26.7.5)."""
    if raters < 3:
        return 1.0
    z, free = 1.959964, raters - 1
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return float(np.sqrt(raters / free) * t / z)


def strengths(wins: np.ndarray) -> np.ndarray:
    """Elo points, mean 1000, from wins[i, j]: how often i was preferred to j (ties half)."""
    met = wins + wins.T
    wins = wins + PRIOR * (met > 0) / 2
    games, won = wins + wins.T, wins.sum(1)
    power = np.ones(len(wins))
    for _ in range(1000):
        against = games / (power[:, None] + power[None, :])
        np.fill_diagonal(against, 0)
        total = against.sum(1)
        new = np.where(total > 0, won / np.where(total > 0, total, 1), power)
        new /= np.exp(np.log(new).mean())
        if np.abs(np.log(new / power)).max() < 1e-9:
            power = new
            break
        power = new
    return 1000 + SCALE * np.log(power)


def agreement(votes: Sequence[tuple[str, str, str]]) -> float | None:
    """Krippendorff's alpha for nominal values (Krippendorff 2011).

    Args:
        votes: (unit, rater, value); units with one value say nothing.

    Returns:
        1 is full agreement, 0 what chance gives; None when no unit has two values, or all values are alike.
    """
    units: dict[str, list[str]] = defaultdict(list)
    for unit, _, value in votes:
        units[unit].append(value)
    paired = [values for values in units.values() if len(values) > 1]
    total = sum(len(values) for values in paired)
    counts: dict[str, int] = defaultdict(int)
    disagreed = 0.0
    for values in paired:
        for value in values:
            counts[value] += 1
        unlike = sum(one != other for one in values for other in values)
        disagreed += unlike / (len(values) - 1)
    expected = total**2 - sum(count**2 for count in counts.values())
    if not total or not expected:
        return None
    return 1 - (total - 1) * disagreed / expected
