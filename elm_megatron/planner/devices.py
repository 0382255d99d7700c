"""Data sheets of accelerators: what the time, cost and energy models know of a device. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from conf.errors import InputError


@dataclass(frozen=True)
class Device:
    """One accelerator, from its maker's data sheet.

    Attributes:
        name: as `cluster.site.gpu_model` names it.
        memory_gb: memory, GiB.
        peak_tflops: bf16 matrix products without sparsity, TFLOP/s.
        bandwidth_gb: memory bandwidth, GB/s.
        link_gb: NVLink bandwidth in one direction to the other devices of the node, GB/s.
        watts: thermal design power.
        idle_watts: power without work.
    """

    name: str
    memory_gb: float
    peak_tflops: float
    bandwidth_gb: float
    link_gb: float
    watts: float
    idle_watts: float


# Sources: NVIDIA's data sheets H100 (2023), H200 (2024), A100 (2021). The 94 GB H100 has HBM2e, 2.4 TB/s;
# Snellius and Meta's Grand Teton use that variant. Idle power: what nvidia-smi shows on idle boards.
DEVICES = (
    Device("h100", 80, 989, 3350, 450, 700, 70),
    Device("h100_94", 94, 989, 2400, 450, 700, 70),
    Device("h100_500w", 94, 989, 2400, 450, 500, 70),
    Device("h100_pcie", 80, 756, 2000, 300, 350, 50),
    Device("h200", 141, 989, 4800, 450, 700, 75),
    Device("a100_40", 40, 312, 1555, 300, 400, 55),
    Device("a100_80", 80, 312, 2039, 300, 400, 55),
)


def device(name: str) -> Device:
    """The device of a name.

    Raises:
        InputError: no sheet has that name.
    """
    for known in DEVICES:
        if known.name == name:
            return known
    names = ", ".join(known.name for known in DEVICES)
    raise InputError(f"cluster.site.gpu_model={name}: no such device; allowed are {names}.")


def nearest(peak_tflops: float, memory_gb: float) -> Device:
    """The device whose peak and memory are nearest to what a site's YAML says."""
    return min(
        DEVICES,
        key=lambda one: (abs(one.peak_tflops - peak_tflops), abs(one.memory_gb - memory_gb), -one.watts),
    )
