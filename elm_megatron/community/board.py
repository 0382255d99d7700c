"""The board: what the votes say of the models."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session as Database
from sqlalchemy.orm import selectinload

from elm_megatron.community.ratings import Ballot, Rating, agreement, ratings
from elm_megatron.community.tables import Vote

SHARES = {"a": 1.0, "b": 0.0, "tie": 0.5}


@dataclass(frozen=True)
class Board:
    """Ratings and how they came about.

    Attributes:
        ratings: the best first.
        votes: counted.
        dropped: votes left out, by reason.
        by_language: counted votes by the language of the prompt.
        agreement: Krippendorff's alpha, or None.
    """

    ratings: list[Rating]
    votes: int
    dropped: dict[str, int]
    by_language: dict[str, int]
    agreement: float | None


def board_of(database: Database) -> Board:
    """The board of all votes that count."""
    ballots, units = [], []
    dropped: dict[str, int] = {}
    languages: dict[str, int] = {}
    for vote in database.scalars(
        select(Vote).options(selectinload(Vote.comparison), selectinload(Vote.person)).order_by(Vote.id)
    ):
        pair = vote.comparison
        reason = "withdrawn" if vote.withdrawn or pair.withdrawn else pair.dropped or None
        if reason:
            dropped[reason] = dropped.get(reason, 0) + 1
            continue
        rater = vote.person.pseudonym
        units.append((str(pair.id), rater, vote.winner))
        languages[pair.language] = languages.get(pair.language, 0) + 1
        if vote.winner in SHARES:
            ballots.append(Ballot(rater, pair.model_a, pair.model_b, SHARES[vote.winner]))
    return Board(ratings(ballots), len(units), dropped, languages, agreement(units))
