"""Early stopping: which validation was the best, and whether the last ones brought nothing better."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Verdict:
    """What the validations so far say.

    Attributes:
        best: the newest is the best of all.
        enough: as many as `patience` in a row were no better.
    """

    best: bool
    enough: bool


def judge(losses: list[float], patience: int) -> Verdict:
    """Judge the losses of all validations, oldest first."""
    best = losses.index(min(losses))
    since = len(losses) - 1 - best
    return Verdict(since == 0, since >= patience)


def shared(verdict: Verdict | None, device: torch.device) -> Verdict:
    """Rank 0's verdict, on every rank."""
    flags = torch.zeros(2, device=device)
    if verdict is not None:
        flags[0], flags[1] = verdict.best, verdict.enough
    dist.broadcast(flags, src=0)
    return Verdict(*flags.bool().tolist())
