"""The one module that asks torch about devices: CUDA, streams, memory, names, peaks.

    python -m elm_megatron.model.device        prints what this machine has, as JSON

`prepare()` must be called before megatron-core builds anything. Without a GPU, or with `cluster.device=cpu`,
it installs the CPU stand-in of `cuda_on_cpu.py`. A test holds every other module to asking here.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch

from conf.errors import InputError
from elm_megatron.model import known_warnings
from elm_megatron.model.host_memory import keep_freed_blocks


def has_gpu() -> bool:
    """Whether torch sees a CUDA device here."""
    return torch.cuda.is_available()


def best() -> str:
    """The device that serves a command without `cluster.device`, in that key's words: gpu, else cpu."""
    return "gpu" if has_gpu() else "cpu"


def named(device: str) -> torch.device:
    """torch's device for `cluster.device`, "cpu" or "gpu"; the current one of several GPUs."""
    return torch.device("cuda" if device == "gpu" else "cpu")


def is_gpu(device: torch.device) -> bool:
    """Whether this is a GPU."""
    return device.type == "cuda"


def current() -> Any:
    """Where megatron-core puts new parameters: this rank's GPU, or what the stand-in answers."""
    return torch.cuda.current_device()


def describe() -> dict[str, Any]:
    """The GPUs of this machine: how many, the name and compute capability of the first, NCCL's version."""
    count = torch.cuda.device_count()
    if not count:
        return {"count": 0, "name": None, "capability": None, "nccl": None}
    return {
        "count": count,
        "name": gpu_name(torch.device("cuda", 0)),
        "capability": list(capability(torch.device("cuda", 0))),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
    }


def gpu_name(device: torch.device) -> str:
    """The product name of a GPU, such as "NVIDIA H100"."""
    return torch.cuda.get_device_name(device)


def capability(device: torch.device) -> tuple[int, int]:
    """A GPU's compute capability, such as (9, 0) of an H100."""
    return torch.cuda.get_device_capability(device)


def prepare(device: str, local_rank: int) -> torch.device:
    """Choose this rank's device and make megatron-core able to use it.

    Args:
        device: `cluster.device`, "cpu" or "gpu".
        local_rank: index of the rank on its node, which is its GPU.

    Raises:
        InputError: a GPU was asked for and this machine shows none.
    """
    known_warnings.hide()
    full_fp32()
    if device == "cpu":
        from elm_megatron.model import cuda_on_cpu

        cuda_on_cpu.install()
        keep_freed_blocks()
        return torch.device("cpu")
    # One hardware queue keeps a collective and the product it overlaps in the order they were issued.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    if not has_gpu():
        raise InputError("cluster.device=gpu: torch sees no CUDA device on this node; allowed here is cpu.")
    torch.cuda.set_device(local_rank % torch.cuda.device_count())
    return torch.device("cuda", torch.cuda.current_device())


def full_fp32() -> None:
    """Let products of fp32 matrices be fp32."""
    # NVIDIA's images set TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, which rounds them to 10 bits.
    os.environ["TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"] = "0"
    torch.set_float32_matmul_precision("highest")


def pretend() -> None:
    """Let megatron-core build models that hold no memory, on torch's meta device."""
    known_warnings.hide()
    from elm_megatron.model import cuda_on_cpu

    cuda_on_cpu.install("meta")


def backend(device: torch.device) -> str:
    """The collective backend that serves this device."""
    return "nccl" if device.type == "cuda" else "gloo"


def nvml_name(device: torch.device) -> str | None:
    """What NVML calls this GPU; None for a CPU.

    Not its index: NVML counts all GPUs of a node, CUDA those that CUDA_VISIBLE_DEVICES leaves.
    """
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else None


def synchronize(device: torch.device) -> None:
    """Wait until the device has done everything asked of it (nothing to do on a CPU)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def record_memory(device: torch.device) -> None:
    """Keep the stack of every allocation on a GPU, for `dump_memory`; costs a little time."""
    if is_gpu(device):
        torch.cuda.memory._record_memory_history()


def dump_memory(path: Path) -> None:
    """Write what this rank's GPU holds in memory, for pytorch.org/memory_viz."""
    torch.cuda.memory._dump_snapshot(str(path))


def host_buffer(size: int, like: torch.Tensor) -> torch.Tensor:
    """Uninitialised fp32 host memory [size], pinned where `like` is on a GPU: a copy then need not wait."""
    return torch.empty(size, dtype=torch.float32, pin_memory=like.is_cuda)


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of host memory on the device; to a GPU from pinned memory, without waiting for the copy."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class Stopwatch:
    """Times a device's work between two marks in its queue, without making the host wait for it.

    Args:
        device: whose work; on a CPU the host's own clock serves.
    """

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._began = self._ended = self._mark()

    def start(self) -> None:
        """Mark the beginning."""
        self._began = self._ended = self._mark()

    def stop(self) -> None:
        """Mark the end."""
        self._ended = self._mark()

    def seconds(self) -> float:
        """Between the marks; on a GPU only after `synchronize`."""
        return self._began.elapsed_time(self._ended) / 1e3 if self._cuda else self._ended - self._began

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def peak_memory_bytes(device: torch.device) -> int:
    """Peak bytes this process ever held on its device (a CPU: its largest resident set)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # getrusage would also count what the launcher held before this process was its own program.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


# Dense peak FLOP/s by precision, from NVIDIA's data sheets (without sparsity); fp32 is never rounded to TF32.
# The first key within a GPU's name counts: cards, with fewer or slower units, stand before the SXM modules.
GPU_PEAK_FLOPS = {
    "H100 PCIe": {"fp32": 51e12, "bf16": 756e12, "fp8": 1513e12},
    "H100 NVL": {"fp32": 60e12, "bf16": 835e12, "fp8": 1670e12},
    "H200 NVL": {"fp32": 60e12, "bf16": 835e12, "fp8": 1670e12},
    "H100": {"fp32": 67e12, "bf16": 989e12, "fp8": 1979e12},
    "H200": {"fp32": 67e12, "bf16": 989e12, "fp8": 1979e12},
    "A100": {"fp32": 19.5e12, "bf16": 312e12, "fp8": 312e12},
}


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Peak FLOP/s of one rank's device: the data sheet's on a known GPU, measured on a CPU.

    Returns None for an unknown GPU; an MFU is then not reported rather than invented.
    """
    if device.type == "cuda":
        name = gpu_name(device)
        return next((peak[precision] for key, peak in GPU_PEAK_FLOPS.items() if key in name), None)
    return _measured_matmul_flops(torch.bfloat16 if precision == "bf16" else torch.float32)


def _measured_matmul_flops(dtype: torch.dtype, n: int = 768, rounds: int = 5) -> float:
    """FLOP/s of an n×n matrix product on this process's threads: the best of a few rounds."""
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    out = torch.empty(n, n, dtype=dtype)
    torch.mm(a, b, out=out)
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - start)
    return 2.0 * n**3 / best


def main() -> None:
    """Print what this machine has."""
    print(json.dumps(describe()))


if __name__ == "__main__":
    main()
