"""Refusals in the middle of a run, before an update is made."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable

import torch

from elm_megatron.engine.distributed import gathered


class BadNumbers(RuntimeError):
    """Loss or gradient is not finite, or the loss has jumped.

    Raised before the update, so the last checkpoint stays good.

    Args:
        step: the update that was not made, counted from 1; every rank comes to it.
        where: which ranks' numbers are not finite, in words; empty for a jump.
    """

    def __init__(self, step: int, loss: float, grad_norm: float, where: str):
        super().__init__(
            f"step {step}: loss {loss}, gradient norm {grad_norm}{where}; the update was not made"
        )


class Guard:
    """Watches loss and gradient norm; every rank sees the same numbers and comes to the same end.

    Args:
        spike_factor: refuse a loss above this multiple of the median of the last losses; None for no limit.
        window: how many losses the median is taken over; the limit holds once half of them are there.
    """

    def __init__(self, spike_factor: float | None, window: int = 64):
        self._factor = spike_factor
        self._losses: deque[float] = deque(maxlen=window)

    @property
    def losses(self) -> list[float]:
        """The last losses, oldest first; a checkpoint keeps them, so that a resumed run is watched too."""
        return list(self._losses)

    def remember(self, losses: Iterable[float]) -> None:
        """Go on from the losses that a checkpoint kept."""
        self._losses.extend(losses)

    def check(self, step: int, loss: float, grad_norm: float, where: Callable[[], str] = str) -> None:
        """Let update number `step` pass, or refuse it.

        Args:
            where: asked on every rank when a number is not finite.

        Raises:
            BadNumbers: the loss or the norm is not finite, or the loss has jumped.
        """
        spike = False
        if self._factor and len(self._losses) >= (self._losses.maxlen or 0) // 2:
            spike = loss > self._factor * statistics.median(self._losses)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise BadNumbers(step, loss, grad_norm, where())
        if spike:
            raise BadNumbers(step, loss, grad_norm, "")
        self._losses.append(loss)


def not_finite(weights: Iterable[torch.nn.Parameter], sums: list[float]) -> str:
    """Which ranks have weights that are not finite, else which have such a loss, else such gradients.

    Every rank calls it with its own parameters and sums, and gets the same words.
    """
    weights = list(weights)
    gradients = [weight.main_grad for weight in weights if hasattr(weight, "main_grad")]
    mine = {
        "weights": all(weight.isfinite().all() for weight in weights),
        "loss": all(math.isfinite(number) for number in sums),
        "gradients": all(gradient.isfinite().all() for gradient in gradients),
    }
    every = gathered(mine)
    for kind in mine:
        ranks = [str(rank) for rank, good in enumerate(every) if not good[kind]]
        if ranks:
            return f", {kind} not finite on rank {', '.join(ranks)}"
    return ""
