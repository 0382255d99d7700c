"""The loss of a larger model, predicted from small ones of its family.

The family is trained with the same number of tokens for each parameter. Its losses then follow one power law
of the compute C = 6 · parameters · tokens (Kaplan et al. 2020; Hoffmann et al. 2022, section 3.2):

    loss(C) = E + K · C^-γ

E is the loss that no model of the family goes below. Few points do not fix E. So every E of a grid is fitted
by least squares in logarithms, and those whose error is near the best one make the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conf.errors import InputError

LEAST = 3  # points for a fit
GRID = 200  # values of E
NEAR = 4.0  # an E counts when its squared error is at most this multiple of the least
FLOOR = 0.01  # relative spread of a loss between seeds: the interval is never narrower


@dataclass(frozen=True)
class Rung:
    """One trained model of the family.

    Attributes:
        name: of its run.
        parameters: its weights.
        tokens: it was trained on.
        loss: on the validation split, nats per token.
    """

    name: str
    parameters: int
    tokens: int
    loss: float

    @property
    def compute(self) -> float:
        """Training FLOPs, 6 per weight and token."""
        return 6.0 * self.parameters * self.tokens


@dataclass(frozen=True)
class Prediction:
    """A predicted loss, nats per token, and the interval it is expected in."""

    loss: float
    low: float
    high: float


class Law:
    """A family's power law.

    Args:
        rungs: trained models, of different compute.

    Raises:
        InputError: fewer than three of them, or two of the same compute.
    """

    def __init__(self, rungs: Sequence[Rung]):
        if len(rungs) < LEAST:
            raise InputError(f"a ladder needs at least {LEAST} trained sizes, found {len(rungs)}.")
        compute = np.log([rung.compute for rung in rungs])
        if len(set(compute.tolist())) < len(rungs):
            raise InputError("two sizes of this ladder have the same compute; give different sizes.")
        losses = np.array([rung.loss for rung in rungs])
        floors = np.linspace(0.0, 0.98 * losses.min(), GRID)
        fits = [self._fit(compute, losses, floor) for floor in floors]
        least = min(error for error, *_ in fits)
        self._kept = [fit for fit in fits if fit[0] <= NEAR * least + 1e-12]
        self._best = min(fits, key=lambda fit: fit[0])
        self._spread = max(FLOOR, float(np.sqrt(least / len(rungs))) / float(losses.mean()))

    @staticmethod
    def _fit(compute: np.ndarray, losses: np.ndarray, floor: float) -> tuple[float, float, float, float]:
        """(squared error of the losses, E, log K, γ) for one E."""
        slope, intercept = np.polyfit(compute, np.log(losses - floor), 1)
        error = float(((floor + np.exp(intercept + slope * compute) - losses) ** 2).sum())
        return error, float(floor), float(intercept), float(-slope)

    @property
    def exponent(self) -> float:
        """γ of the best fit."""
        return self._best[3]

    def predict(self, parameters: int, tokens: int) -> Prediction:
        """The loss of a model of the family with so many weights, trained on so many tokens."""
        compute = float(np.log(6.0 * parameters * tokens))

        def loss(fit: tuple[float, float, float, float]) -> float:
            _, floor, intercept, gamma = fit
            return floor + float(np.exp(intercept - gamma * compute))

        losses, best = [loss(fit) for fit in self._kept], loss(self._best)
        margin = 2 * self._spread * best
        return Prediction(best, min(losses) - margin, max(losses) + margin)
