"""The output layer and the cross entropy in one: loss per token without ever holding all logits.

Rows are taken a chunk at a time. A chunk's logits become, in place and block by block, exponentials and then
the gradient of the loss, which is used at once, so the layer's three matrix products are nearly all the work
and one chunk is all the memory. Where the vocabulary is split over tensor-parallel ranks, they exchange three
numbers a row.

With m and s a rank's largest logit and Σ exp(logit - m), the loss of a row is log Σ_ranks s·exp(m) minus the
label's logit; its gradient by the logits is softmax minus the label's one-hot vector. A z-loss, z·log²Z with
Z = Σ exp(logit), multiplies the softmax there by 1 + 2z·log Z; the loss that is returned stays without it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from elm_megatron.model import device as devices

HIDDEN = -1e30  # a logit without a share in the softmax, even where a rank has no other
CHUNK = 1 << 24  # logits held at once: rows enough for fast products, and few roundings of their sum in bf16
BLOCK = 1 << 22  # those taken through the softmax at once, in fp32 and near the cores
# A GPU is kept busy by large products and few launches: 0.5 GiB of bf16 logits, 0.25 GiB in fp32 at once.
GPU_CHUNK, GPU_BLOCK = 1 << 28, 1 << 26


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    group: dist.ProcessGroup | None,
    real: int | None = None,
    z_loss: float = 0.0,
) -> torch.Tensor:
    """Cross entropy of ``hidden @ weight.T``, in nats per row: fp32 [n].

    Args:
        hidden: [n, h]; its gradient is this rank's part of the sum over the tensor-parallel ranks.
        weight: [v, h], this rank's rows of the output layer.
        labels: int64 [n], numbered over the whole vocabulary.
        weights: fp32 [n]. What the loss is made of must weigh the rows by these, up to a common factor, when
            `weight` is trained: its gradient is summed before that factor is known.
        group: the tensor-parallel ranks; None for one.
        real: how many of this rank's rows are tokens; the others pad the vocabulary and get no share in the
            softmax. None for all.
        z_loss: coefficient of log²Z per row, which is learnt and not returned; it keeps the logits from
            drifting (PaLM, Chowdhery et al. 2022, section 5).
    """
    real = len(weight) if real is None else real
    learns = torch.is_grad_enabled()
    return _LinearCrossEntropy.apply(hidden, weight, labels, weights, group, real, z_loss, learns)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        weights: torch.Tensor,
        group: dist.ProcessGroup | None,
        real: int,
        z_loss: float,
        learns: bool,
    ) -> torch.Tensor:
        by_hidden = torch.empty_like(hidden) if learns and ctx.needs_input_grad[0] else None
        by_weight = torch.empty_like(weight) if learns and ctx.needs_input_grad[1] else None
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        labels, mine = _own_labels(labels, len(weight), group)
        sizes = (GPU_CHUNK, GPU_BLOCK) if devices.is_gpu(hidden.device) else (CHUNK, BLOCK)
        rows, block = (min(len(hidden), max(1, size // len(weight))) for size in sizes)
        # Memory of one chunk, used again by the next: fresh pages cost more than what is written into them.
        chunk = torch.empty(rows, len(weight), dtype=hidden.dtype, device=hidden.device)
        wide = None
        if hidden.dtype != torch.float32:
            wide = torch.empty(block, len(weight), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), rows):
            where = slice(start, start + rows)
            x = hidden[where]
            products = chunk[: len(x)]
            torch.mm(x, weight.t(), out=products)
            for first in range(0, len(x), block):
                product = products[first : first + block]
                part = slice(start + first, start + first + len(product))
                logits = product if wide is None else wide[: len(product)].copy_(product)
                logits[:, real:] = HIDDEN
                exp, share, losses[part] = _softmax(logits, labels[part], mine[part], group, z_loss)
                if learns:
                    slope = exp.mul_(share[:, None]).scatter_add_(1, labels[part, None], -mine[part, None])
                    product.copy_(slope)  # nothing where they are one
            if by_hidden is not None:
                torch.mm(products, weight, out=by_hidden[where])
            if by_weight is not None:
                weighed = x * weights[where, None].to(x.dtype)
                by_weight.addmm_(products.t(), weighed, beta=float(start > 0))  # beta 0 reads nothing
        ctx.save_for_backward(by_hidden, by_weight, weights)
        return losses

    @staticmethod
    def backward(ctx: Any, by_losses: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        by_hidden, by_weight, weights = ctx.saved_tensors
        if by_hidden is not None:
            by_hidden = by_hidden * by_losses.to(by_hidden.dtype)[:, None]
        if by_weight is not None:
            factor = torch.dot(by_losses, weights) / torch.dot(weights, weights).clamp(min=1e-30)
            _require_proportional(by_losses, factor * weights)
            by_weight = by_weight.mul_(factor.to(by_weight.dtype))
        return by_hidden, by_weight, None, None, None, None, None, None


def _require_proportional(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Refuse a loss that weighs the rows otherwise than was said; on a GPU without waiting for it.

    Raises:
        RuntimeError: it does; on a GPU at the next call that waits.
    """
    message = "the loss weighs the tokens in another way than the weights it was given"
    agrees = ((found - expected).abs() <= 1e-4 * expected.abs()).all()
    if devices.is_gpu(found.device):
        torch._assert_async(agrees, message)
    elif not agrees:
        raise RuntimeError(message)


def _own_labels(
    labels: torch.Tensor, size: int, group: dist.ProcessGroup | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels numbered in this rank's rows (0 for another rank's), and fp32 1 where they are this rank's."""
    own = labels - size * (dist.get_rank(group) if group else 0)
    mine = (own >= 0) & (own < size)
    return own.where(mine, 0), mine.float()


def _softmax(
    logits: torch.Tensor,
    labels: torch.Tensor,
    mine: torch.Tensor,
    group: dist.ProcessGroup | None,
    z_loss: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Softmax and loss of rows of logits.

    Returns:
        exp(logit - m), in the logits' place; the factor [r] that makes it the gradient of log Z + z·log²Z by
        the logits, without a z-loss the softmax; losses in nats [r].
    """
    top = logits.amax(-1)
    label = logits.gather(1, labels[:, None])[:, 0] * mine
    exp = logits.sub_(top[:, None]).exp_()
    total = exp.sum(-1)
    if group is None:
        log_sum = top + total.log()
    else:
        every = [torch.empty(3, len(top), device=top.device) for _ in range(dist.get_world_size(group))]
        dist.all_gather(every, torch.stack([top, total, label]), group=group)
        tops, totals, found = torch.stack(every, 1)
        log_sum = torch.logsumexp(tops + totals.log(), 0)
        label = found.sum(0)
    return exp, (top - log_sum).exp() * (1.0 + 2.0 * z_loss * log_sum), log_sum - label
