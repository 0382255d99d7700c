"""Refusals in the middle of a run, before an update is made."""

from __future__ import annotations

import math
import statistics
from collections import deque


class BadNumbers(RuntimeError):
    """Loss or gradient is not finite, or the loss has jumped.

    Raised before the update, so the last checkpoint stays good.

    Args:
        step: the update that was not made, counted from 1.
        rank: who noticed; every rank does at the same step.
    """

    def __init__(self, step: int, rank: int, loss: float, grad_norm: float):
        super().__init__(
            f"step {step}: loss {loss}, gradient norm {grad_norm} on rank {rank}; the update was not made"
        )
        self.step, self.rank = step, rank


class Guard:
    """Watches loss and gradient norm; every rank sees the same numbers and comes to the same end.

    Args:
        rank: named in the refusal.
        spike_factor: refuse a loss above this multiple of the median of the last losses; None for no limit.
        window: how many losses the median is taken over; the limit holds once half of them are there.
    """

    def __init__(self, rank: int, spike_factor: float | None, window: int = 64):
        self._rank, self._factor = rank, spike_factor
        self._losses: deque[float] = deque(maxlen=window)

    def check(self, step: int, loss: float, grad_norm: float) -> None:
        """Let update number `step` pass, or refuse it.

        Raises:
            BadNumbers: the loss or the norm is not finite, or the loss has jumped.
        """
        spike = False
        if self._factor and len(self._losses) >= (self._losses.maxlen or 0) // 2:
            spike = loss > self._factor * statistics.median(self._losses)
        if spike or not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise BadNumbers(step, self._rank, loss, grad_norm)
        self._losses.append(loss)
