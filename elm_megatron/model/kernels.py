"""Which kernel serves each operation here, and why: python -m elm_megatron.model.kernels

Order of preference: Transformer Engine, then apex, then torch. Each is known by what it can do, not by its
name: the package `apex` on PyPI is an unrelated web toolkit.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass

import torch
from megatron.core.utils import is_te_min_version

from conf.errors import InputError
from elm_megatron.model import device as devices


@dataclass(frozen=True)
class Kernel:
    """What serves one operation.

    Attributes:
        operation: what is computed.
        provider: who computes it.
        reason: why this one.
    """

    operation: str
    provider: str
    reason: str


def has_transformer_engine() -> bool:
    """Whether Transformer Engine is installed here."""
    return importlib.util.find_spec("transformer_engine") is not None


def uses_transformer_engine(device: torch.device, precision: str) -> bool:
    """Whether a run's layers are Transformer Engine's, which has no flash or fused attention for fp32."""
    return devices.is_gpu(device) and precision != "fp32" and has_transformer_engine()


def require_fp8(device: torch.device) -> None:
    """Refuse fp8 where it would quietly be something else.

    Raises:
        InputError: Transformer Engine is missing or older than its recipe with current scales (2.2), or the
            GPU has no fp8 (compute capability below 8.9).
    """
    allowed = "allowed here are fp32 and bf16."
    if not has_transformer_engine():
        raise InputError(f"train.precision=fp8: Transformer Engine is not installed; {allowed}")
    if not is_te_min_version("2.2.0.dev0"):
        found = importlib.metadata.version("transformer_engine")
        raise InputError(f"train.precision=fp8: needs Transformer Engine 2.2, found {found}; {allowed}")
    if devices.capability(device) < (8, 9):
        raise InputError(f"train.precision=fp8: {devices.gpu_name(device)} has none; {allowed}")


def apex_state() -> str:
    """Whether NVIDIA's "apex" is here, the unrelated package of that name ("impostor"), or "none"."""
    if importlib.util.find_spec("apex") is None:
        return "none"
    try:
        optimizers = importlib.import_module("apex.optimizers")
    except Exception:  # the web toolkit fails in ways of its own
        return "impostor"
    return "apex" if hasattr(optimizers, "FusedAdam") else "impostor"


def serving(device: str) -> list[Kernel]:
    """The kernels a run on this device would use in bf16; in fp32 torch serves where it does without a GPU.

    Args:
        device: `cluster.device`, "cpu" or "gpu".
    """
    engine = device == "gpu" and has_transformer_engine()
    apex = apex_state()
    if engine:
        why = f"Transformer Engine {importlib.metadata.version('transformer_engine')} is installed"
        provider = "Transformer Engine"
    else:
        why = "the run is on a CPU" if device == "cpu" else "Transformer Engine is not installed"
        provider = "torch"
    fused_adam = "apex" if apex == "apex" and device == "gpu" and not engine else provider
    rows = [
        Kernel("norm and linear", provider, why),
        Kernel("attention", "Transformer Engine (flash or cuDNN)" if engine else "torch SDPA", why),
        Kernel("rotary positions", provider, why),
        Kernel("SwiGLU", "megatron-core, fused" if engine else "torch", why),
        Kernel("vocabulary cross entropy", provider if engine else "this suite, with the output layer", why),
        Kernel("AdamW", f"{fused_adam} FusedAdam" if fused_adam != "torch" else "torch AdamW", why),
        Kernel("fp8", provider if engine else "none", why),
    ]
    if apex == "impostor":
        rows.append(Kernel("apex", "impostor", "the PyPI package apex is a web toolkit: pip uninstall apex"))
    return rows


def main() -> None:
    """Print one line per operation."""
    for kernel in serving(devices.best()):
        print(f"{kernel.operation:<26}{kernel.provider:<38}{kernel.reason}")


if __name__ == "__main__":
    main()
