"""Part A: the self-checks, and the cross entropies at the size of `model=large` beside fp32."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from elm_megatron.model import device as devices

SIZES = {True: (64, 32, 512), False: (8192, 2048, 32_000)}  # small or not: rows, hidden, vocabulary
CHUNKS = {"ours 2^24/2^22": (24, 22), "ours 2^26/2^24": (26, 24), "ours 2^28/2^26": (28, 26)}
ROUNDS = 5


def measure(small: bool) -> dict[str, Any]:
    """What was checked, with seconds; ratio, cosine and milliseconds of each cross entropy."""
    from elm_megatron.model import self_check

    began = time.perf_counter()
    checked = [vars(kernel) for kernel in self_check.of_this_machine("cpu" if small else "gpu")]
    seconds = time.perf_counter() - began
    return {"checked": checked, "seconds": seconds, "cross entropy": _cross_entropies(small)}


def _cross_entropies(small: bool) -> dict[str, Any]:
    device, (rows, width, vocabulary) = devices.named("cpu" if small else "gpu"), SIZES[small]
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.randn(rows, width, generator=generator) * 0.5).bfloat16().to(device)
    weight = (torch.randn(vocabulary, width, generator=generator) * 0.02).bfloat16().to(device)
    labels = torch.randint(0, vocabulary, (rows,), generator=generator).to(device)
    mask = (torch.rand(rows, generator=generator) > 0.2).float()
    mask[0] = 0.0  # what went wrong in versions of Transformer Engine
    mask = mask.to(device)
    ways = {name: _ours(sizes, labels, mask) for name, sizes in CHUNKS.items()}
    if not small:
        ways["Transformer Engine's, as megatron-core calls it"] = _fused(labels)

    def gradients(loss: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        leaves = [x.clone().requires_grad_() for x in (hidden, weight)]
        (loss(*leaves) * mask).sum().div(mask.sum()).backward()
        return leaves[0].grad.float(), leaves[1].grad.float()

    def in_fp32(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits = hidden.float() @ weight.float().t()
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    exact = gradients(in_fp32)
    return {name: _beside(lambda way=way: gradients(way), exact, device) for name, way in ways.items()}


def _ours(powers: tuple[int, int], labels: torch.Tensor, mask: torch.Tensor) -> Callable[..., torch.Tensor]:
    from elm_megatron.model import cross_entropy

    def loss(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        sizes = tuple(1 << power for power in powers)
        cross_entropy.GPU_CHUNK, cross_entropy.GPU_BLOCK = sizes
        return cross_entropy.linear_cross_entropy(hidden, weight, labels, mask, None)

    return loss


def _fused(labels: torch.Tensor) -> Callable[..., torch.Tensor]:
    from megatron.core.models.common.language_module.language_module import LanguageModule

    config = SimpleNamespace(cross_entropy_loss_fusion=True, cross_entropy_fusion_impl="te")
    alone: Any = SimpleNamespace(config=config, pg_collection=SimpleNamespace(tp=None))

    def loss(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits = (hidden @ weight.t()).view(4, -1, len(weight)).transpose(0, 1).contiguous()  # [s, b, v]
        return LanguageModule.compute_language_model_loss(alone, labels.view(4, -1), logits).flatten()

    return loss


def _beside(
    found: Callable[[], Any], exact: tuple[torch.Tensor, ...], device: torch.device
) -> dict[str, Any]:
    """Of the worst of the gradients: its norm over that of fp32, and the cosine between them."""
    try:
        pairs = list(zip(found(), exact, strict=True))
        ratios = [(a.norm() / b.norm()).item() for a, b in pairs]
        cosines = [
            torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0).item() for a, b in pairs
        ]
        devices.synchronize(device)
        began = time.perf_counter()
        for _ in range(ROUNDS):
            found()
        devices.synchronize(device)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"[:200]}
    worst = max(ratios, key=lambda ratio: abs(ratio - 1.0))
    return {"ratio": worst, "cosine": min(cosines), "ms": (time.perf_counter() - began) / ROUNDS * 1e3}
