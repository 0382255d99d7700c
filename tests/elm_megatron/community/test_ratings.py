"""Ratings find the strengths that made the votes; intervals cover them; agreement is Krippendorff's."""

from __future__ import annotations

import numpy as np
import pytest

from elm_megatron.community import ratings
from elm_megatron.community.ratings import SCALE, Ballot, agreement

MODELS = "abcd"
TRUE = np.array([0.0, 0.5, 1.0, -0.4])


def tournament(seed: int, raters: int = 30, votes: int = 12, taste: float = 0.4) -> list[Ballot]:
    """Votes of raters who each have a taste of their own."""
    drawn = np.random.default_rng(seed)
    ballots = []
    for rater in range(raters):
        own = TRUE + drawn.normal(0, taste, len(TRUE))
        for _ in range(votes):
            one, other = drawn.choice(len(TRUE), 2, replace=False)
            chance = 1 / (1 + np.exp(own[other] - own[one]))
            ballots.append(Ballot(str(rater), MODELS[one], MODELS[other], float(drawn.random() < chance)))
    return ballots


def coverage(tournaments: int) -> float:
    """Share of true strengths within their 95% interval."""
    true = 1000 + SCALE * (TRUE - TRUE.mean())
    inside = [
        row.low <= true[MODELS.index(row.model)] <= row.high
        for seed in range(tournaments)
        for row in ratings.ratings(tournament(seed), seed)
    ]
    return float(np.mean(inside))


def test_strengths_are_found_from_many_votes() -> None:
    found = ratings.ratings(tournament(1, raters=400, votes=20, taste=0.0))
    true = 1000 + SCALE * (TRUE - TRUE.mean())
    assert [row.model for row in found] == ["c", "b", "a", "d"]
    for row in found:
        assert row.strength == pytest.approx(true[MODELS.index(row.model)], abs=25)
        assert row.low < row.strength < row.high


def test_intervals_cover(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratings, "ROUNDS", 150)
    assert 0.88 <= coverage(60) <= 0.99  # 1,000 tournaments in the slow test


@pytest.mark.slow
def test_intervals_cover_in_a_thousand_tournaments() -> None:
    assert 0.93 <= coverage(1000) <= 0.97


def test_ties_and_one_sided_votes_stay_finite() -> None:
    even = ratings.ratings([Ballot("r", "a", "b", 0.5)] * 4)
    assert [row.strength for row in even] == [1000.0, 1000.0]
    assert even[0].low == -np.inf  # one rater says nothing of others
    won = ratings.ratings([Ballot(str(n), "a", "b", 1.0) for n in range(5)])
    assert won[0].model == "a" and np.isfinite(won[0].strength)
    assert ratings.ratings([]) == []


def test_agreement() -> None:
    # Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: any number of raters.
    table = {
        "A": "1 2 3 3 2 1 4 1 2 * * *", "B": "1 2 3 3 2 2 4 1 2 5 * 3",
        "C": "* 3 3 3 2 3 4 2 2 5 1 *", "D": "1 2 3 3 2 4 4 1 2 5 1 *",
    }  # fmt: skip
    votes = [
        (str(unit), rater, value)
        for rater, row in table.items()
        for unit, value in enumerate(row.split())
        if value != "*"
    ]
    assert agreement(votes) == pytest.approx(0.743, abs=5e-4)
    assert agreement([("1", "a", "x"), ("1", "b", "x")]) is None
    assert agreement([("1", "a", "x"), ("2", "b", "y")]) is None
