"""Every kernel that a run is about to use, beside the same formula in torch's fp32, at the start of the run.

A fused kernel can be wrong in one version and right in the next, or wrong on one GPU, and its loss can be
right while its gradient is not: Transformer Engine's cross entropy was, in seven versions. So the values and
the gradients of each are compared on a few rows. A wrong kernel is refused by name. All together take
milliseconds.

    python -m elm_megatron.model.kernels        checks those of this machine
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel
from megatron.core.transformer.transformer_config import TransformerConfig

from conf.errors import InputError
from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig
from elm_megatron.model import device as devices
from elm_megatron.model import kernels, llama
from elm_megatron.model.kernel_formulas import CHECKS, Bench, Compared, attention
from elm_megatron.model.kernels import Kernel
from elm_megatron.model.torch_attention import TorchCoreAttention, varlen_attn

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}  # ‖found - torch's‖ / ‖torch's‖


class WrongKernel(InputError):
    """A kernel computes something else than torch, or cannot run here."""


def verify(
    modules: list[torch.nn.Module], config: TransformerConfig, device: torch.device, packed: bool
) -> list[Kernel]:
    """Check what these model chunks use; returns their kernels, those that were checked marked.

    Every rank calls it, before it wraps the modules. No rank waits for another.

    Args:
        modules: this rank's chunks; what serves is read off them.
        config: megatron-core's, that they were built with.
        packed: whether sequences are packed, one behind the other.

    Raises:
        WrongKernel: one computes something else than torch.
    """
    module = modules[-1]
    attention = module.decoder.layers[0].self_attention.core_attention
    engine = not isinstance(attention, TorchCoreAttention)
    alone = config.context_parallel_size == 1
    fused = module.takes_fused_loss
    bench = Bench(config, device, attention if alone else None, engine, fused, module.z_loss, packed)
    _choose_packed_attention(bench)
    name = "gpu" if devices.is_gpu(device) else "cpu"
    return check(kernels.serving(name, engine, fused), bench)


def _choose_packed_attention(bench: Bench) -> None:
    """Take torch's one kernel for packed sequences where it is right; else each sequence by itself."""
    if not (
        bench.packed and isinstance(bench.attention, TorchCoreAttention) and devices.is_gpu(bench.device)
    ):
        return
    TorchCoreAttention.fused_packed = varlen_attn is not None
    try:
        _require_right(Kernel("attention", "torch varlen", ""), attention, bench)
    except WrongKernel:
        TorchCoreAttention.fused_packed = False


def check(chosen: list[Kernel], bench: Bench) -> list[Kernel]:
    """The kernels, those with a check marked as checked.

    Raises:
        WrongKernel: one computes something else than torch.
    """
    _require_full_precision(bench)
    checked = []
    for kernel in chosen:
        compare = CHECKS.get(kernel.operation)
        if compare is not None and not (kernel.operation == "attention" and bench.attention is None):
            _require_right(kernel, compare, bench)
            kernel = kernel.confirmed()
        checked.append(kernel)
    return checked


def _require_right(kernel: Kernel, compare: Callable[[Bench], Iterator[Compared]], bench: Bench) -> None:
    named = f"{kernel.operation} by {kernel.provider}"
    try:
        with torch.enable_grad():
            results = list(compare(bench))
    except Exception as error:
        raise WrongKernel(
            f"{named}: cannot run on {bench.device}: {type(error).__name__}: {error}"
        ) from error
    for result in results:
        found, expected = result.found.detach().float().flatten(), result.expected.detach().float().flatten()
        error = ((found - expected).norm() / expected.norm()).item()
        if not error <= TOLERANCE[bench.config.params_dtype]:  # a NaN is wrong too
            cosine = torch.nn.functional.cosine_similarity(found, expected, 0).item()
            ratio = (found.norm() / expected.norm()).item()
            raise WrongKernel(
                f"{named}: {result.what} is wrong, {ratio:.3g} times as large as torch's at a cosine of "
                f"{cosine:.3f}. Install a version with this mended, or remove it: torch's then serves."
            )


def _require_full_precision(bench: Bench) -> None:
    """fp32 must be fp32: NVIDIA's images round the products of fp32 matrices to TF32, 10 bits."""
    if bench.config.params_dtype != torch.float32:
        return
    a, b = bench.drawn(64, 256), bench.drawn(256, 64)
    exact = a.double() @ b.double()
    error = ((a @ b).double() - exact).norm() / exact.norm()
    if not error <= 1e-5:
        raise WrongKernel(
            f"fp32 matrix product by torch: its error is {error.item():.1e}, that of TF32; unset "
            "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE and NVIDIA_TF32_OVERRIDE, or take train.precision=bf16."
        )


def of_this_machine(name: str) -> list[Kernel]:
    """Check the kernels of a small model on a device, "cpu" or "gpu", in a world of one.

    Raises:
        WrongKernel: one computes something else than torch.
    """
    device = devices.prepare(name, 0)
    parallel = ParallelConfig()
    model = ModelConfig("check", 128, 256, 1, 4, 2, 64, 64)
    precision = "bf16" if name == "gpu" else "fp32"
    with tempfile.TemporaryDirectory() as folder:
        store = dist.FileStore(f"{folder}/store", 1)
        dist.init_process_group(devices.backend(device), store=store, rank=0, world_size=1)
        try:
            parallel_state.initialize_model_parallel()
            tensor_parallel.model_parallel_cuda_manual_seed(0, force_reset_rng=True)
            engine = kernels.uses_transformer_engine(device, precision, packed=True)
            config = llama.transformer_config(model, parallel, precision, transformer_engine=engine)
            modules = [module.to(device) for module in llama.build(model, parallel, config, engine)]
            return verify(modules, config, device, packed=True)
        finally:
            parallel_state.destroy_model_parallel()
            dist.destroy_process_group()


def main() -> None:
    """Check the kernels of this machine's best device, and print a line each."""
    for kernel in of_this_machine(devices.best()):
        checked = "checked" if kernel.checked else ""
        print(f"{kernel.operation:<26}{kernel.provider:<40}{checked:<9}{kernel.reason}")


if __name__ == "__main__":
    main()
