"""What a micro-batch adds to the loss, in the forms megatron-core's schedules take."""

from __future__ import annotations

import torch


def mean_loss(mask: torch.Tensor, losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss of a micro-batch, to differentiate, and (Σ loss, Σ tokens) to report.

    Args:
        mask: fp32 [b, s].
        losses: nats, fp32 [b, s].
    """
    total, count = (losses.float() * mask).sum(), mask.sum()
    return total / count.clamp(min=1.0), torch.stack([total.detach(), count])


def summed_loss(mask: torch.Tensor, losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For micro-batches with unlike numbers of tokens: megatron-core divides by those of the global batch.

    Returns:
        Σ loss, to differentiate; tokens, int32; and (Σ loss, Σ tokens) to report.
    """
    total, count = (losses.float() * mask).sum(), mask.sum()
    return total, count.int(), torch.stack([total.detach(), count])
