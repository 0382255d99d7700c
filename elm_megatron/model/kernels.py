"""Which kernel serves each operation here, and why: python -m elm_megatron.model.kernels

Order of preference: Transformer Engine, then apex, then torch. Each is known by what it can do, not by its
name: the package `apex` on PyPI is an unrelated web toolkit. `self_check.py` compares each chosen kernel with
torch at the start of a run.
"""

from __future__ import annotations

import importlib
import importlib.util
import runpy
from dataclasses import dataclass, replace

import torch
from packaging.version import Version

from conf.errors import InputError
from elm_megatron.model import device as devices
from elm_megatron.model import te_import

# Its gradients are wrong up to 2.10 and rounded before they are scaled up to 2.17 (PRs 1879, 2139, 2402, 3193
# of TransformerEngine); wheels of 2.18 cannot be imported without a driver.
RIGHT_CROSS_ENTROPY = Version("2.19")
FP8_RECIPE = Version("2.2.0.dev0")  # current scales, which need no history that a resumed run would lack
PACKED_ATTENTION = (9, 0)  # cuDNN's for sequences of several lengths; older GPUs have flash-attn's
COST_WITHOUT = "about a third slower (36% instead of 48% of an H100's peak, by a roofline estimate)"


@dataclass(frozen=True)
class Kernel:
    """What serves one operation.

    Attributes:
        operation: what is computed.
        provider: who computes it.
        reason: why this one.
        checked: whether its numbers were compared with torch's in this process.
    """

    operation: str
    provider: str
    reason: str
    checked: bool = False

    def confirmed(self) -> Kernel:
        """The same kernel, after its check."""
        return replace(self, checked=True)


def has_transformer_engine() -> bool:
    """Whether Transformer Engine is installed here and can be imported."""
    return te_import.usable()


def transformer_engine_version() -> Version:
    """The version that is installed; 0 for none."""
    return Version(te_import.version() or "0")


def has_right_cross_entropy() -> bool:
    """Whether Transformer Engine's cross entropy is of a version with right gradients."""
    return has_transformer_engine() and transformer_engine_version() >= RIGHT_CROSS_ENTROPY


def uses_transformer_engine(device: torch.device, precision: str, packed: bool = False) -> bool:
    """Whether a run's layers are Transformer Engine's.

    It has no flash or fused attention for fp32, and for packed sequences none on GPUs before the H100, unless
    the package flash-attn is there.

    Args:
        packed: the run keeps documents apart in packed rows.
    """
    if not devices.is_gpu(device) or precision == "fp32" or not has_transformer_engine():
        return False
    return not packed or has_packed_attention(device)


def has_packed_attention(device: torch.device) -> bool:
    """Whether Transformer Engine attends packed sequences on this GPU."""
    return (
        devices.capability(device) >= PACKED_ATTENTION or importlib.util.find_spec("flash_attn") is not None
    )


def require_fp8(device: torch.device) -> None:
    """Refuse fp8 where it would quietly be something else.

    Raises:
        InputError: Transformer Engine is missing or older than its recipe with current scales (2.2), or the
            GPU has no fp8 (compute capability below 8.9).
    """
    allowed = "allowed here are fp32 and bf16."
    if not has_transformer_engine():
        why = f"cannot be imported ({te_import.failure()})" if te_import.failure() else "is not installed"
        raise InputError(f"train.precision=fp8: Transformer Engine {why}; {allowed}")
    found = transformer_engine_version()
    if found < FP8_RECIPE:
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


def serving(
    device: str,
    transformer_engine: bool | None = None,
    fused_loss: bool | None = None,
    installed: bool | None = None,
) -> list[Kernel]:
    """The kernels of a run on this device.

    Args:
        device: `cluster.device`, "cpu" or "gpu".
        transformer_engine: whether the layers are Transformer Engine's; None is what a bf16 run would take.
        fused_loss: whether its cross entropy serves; None is what a run without z-loss would take.
        installed: whether Transformer Engine can be imported there; None is found out here.
    """
    if installed is None:
        installed = device == "gpu" and has_transformer_engine()
    engine = installed if transformer_engine is None else transformer_engine
    fused = engine and has_right_cross_entropy() if fused_loss is None else fused_loss
    why = _reason(device, engine, installed)
    te = f"Transformer Engine {transformer_engine_version()}"
    provider = te if engine else "torch"
    rows = [
        Kernel("norm and linear", provider, why),
        Kernel("attention", f"{te} (flash or cuDNN)" if engine else "torch SDPA", why),
        Kernel("rotary positions", provider, why),
        Kernel("SwiGLU", "megatron-core, compiled" if device == "gpu" else "torch", why),
        _cross_entropy(te, why, engine, fused),
        _adamw(device, te, installed, why),
        Kernel("fp8", te if engine else "none", why),
    ]
    if apex_state() == "impostor":
        rows.append(Kernel("apex", "impostor", "the PyPI package apex is a web toolkit: pip uninstall apex"))
    return rows


def expected(device: str, precision: str, z_loss: float) -> list[Kernel]:
    """The kernels that a job on such a device will find with the packages of this installation.

    A login node often cannot import what is installed, because it has no driver.
    """
    installed = device == "gpu" and te_import.version() is not None
    engine = installed and precision != "fp32"
    fused = engine and transformer_engine_version() >= RIGHT_CROSS_ENTROPY and not z_loss
    return serving(device, engine, fused, installed)


def _reason(device: str, engine: bool, installed: bool) -> str:
    if device == "cpu":
        return "the run is on a CPU"
    if engine:
        return f"Transformer Engine {transformer_engine_version()} is installed"
    if installed:
        return "these layers are torch's by choice"
    failure = te_import.failure()
    return (
        f"Transformer Engine cannot be imported ({failure})"
        if failure
        else "Transformer Engine is not installed"
    )


def _cross_entropy(te: str, why: str, engine: bool, fused: bool) -> Kernel:
    if fused:
        return Kernel("vocabulary cross entropy", te, why)
    if engine and not has_right_cross_entropy():
        why = f"that of {te} is older than {RIGHT_CROSS_ENTROPY}, whose gradients are the first right ones"
    elif engine:
        why = "Transformer Engine's has no z-loss and no rows that are no tokens"
    return Kernel("vocabulary cross entropy", "this suite, with the output layer", why)


def _adamw(device: str, te: str, installed: bool, why: str) -> Kernel:
    """megatron-core takes the optimizer by what is installed, whatever the layers are."""
    if installed:
        return Kernel("AdamW", f"{te} FusedAdam", f"{te} is installed")
    if device == "gpu" and apex_state() == "apex":
        return Kernel("AdamW", "apex FusedAdam", "apex is installed")
    return Kernel("AdamW", "torch AdamW", why)


def notes(device: str, kernels: list[Kernel]) -> list[str]:
    """What a user should know: the cost of layers on a GPU without Transformer Engine."""
    layers = next(kernel for kernel in kernels if kernel.operation == "attention")
    if device == "cpu" or layers.provider != "torch SDPA" or "by choice" in layers.reason:
        return []
    return [f"{layers.reason}: torch's layers serve, {COST_WITHOUT}; python launch/doctor.py says what to do"]


def summary(kernels: list[Kernel], are_chosen: bool = True) -> str:
    """One line: who serves what; of kernels that are chosen it says which were not checked."""
    by: dict[str, list[str]] = {}
    for kernel in kernels:
        if kernel.provider not in ("none", "impostor"):
            unchecked = are_chosen and not kernel.checked and kernel.operation != "fp8"
            said = kernel.operation + (" (not checked)" if unchecked else "")
            by.setdefault(kernel.provider, []).append(said)
    return "; ".join(f"{provider}: {', '.join(operations)}" for provider, operations in by.items())


def record(kernels: list[Kernel]) -> dict[str, dict[str, object]]:
    """As run.json holds them: operation → provider, and whether it was checked."""
    return {kernel.operation: {"provider": kernel.provider, "checked": kernel.checked} for kernel in kernels}


def main() -> None:
    """Check the kernels of this machine and print one line per operation."""
    runpy.run_module("elm_megatron.model.self_check", run_name="__main__")


if __name__ == "__main__":
    main()
