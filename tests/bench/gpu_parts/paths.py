"""Part B: ways to train, each on one device, at a rate at which a rounding stays a rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench.gpu_parts.training import pretrain
from tests.elm_megatron.small_dataset import make_dataset

PATHS: dict[str, tuple[str, dict[str, Any]]] = {
    "fp32": ("fp32", {}),
    "bf16": ("bf16", {}),
    "recompute": ("bf16", {"recompute": "full"}),
    "selective": ("bf16", {"recompute": "selective"}),
    "z-loss": ("bf16", {"z_loss": 1e-2}),  # this suite's cross entropy, whatever is installed
    "documents": ("bf16", {"reset_attention_mask": True}),  # attention over packed documents
    "masked": ("bf16", {"eod_mask_loss": True}),
}
RATE = 3e-4  # at 3e-3 bf16 and fp32 drift apart by 5% in ten steps


def measure(device: str, names: tuple[str, ...], steps: int, work: Path) -> dict[str, Any]:
    """Losses and gradient norms of each path; a path that fails says how."""
    data, found = make_dataset(work / "data"), {}
    for name in names:
        precision, changes = PATHS[name]
        try:
            run = pretrain(work / name, data, device, precision, steps=steps, lr=RATE, min_lr=RATE, **changes)
            rows = run.read_metrics()
            found[name] = {key: [row[key] for row in rows] for key in ("loss", "grad_norm")}
        except Exception as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
    return found
