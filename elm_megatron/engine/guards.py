"""Refusals in the middle of a run."""

from __future__ import annotations


class BadNumbers(RuntimeError):
    """Loss or gradient is not finite; raised before the update, so the last checkpoint stays good.

    Args:
        step: the update that was not made, counted from 1.
        rank: who noticed; every rank does at the same step.
    """

    def __init__(self, step: int, rank: int, loss: float, grad_norm: float):
        super().__init__(
            f"step {step}: loss {loss}, gradient norm {grad_norm} on rank {rank}; the update was not made"
        )
        self.step, self.rank = step, rank
