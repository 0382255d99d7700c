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
        fp32_tflops: fp32 products without TF32, TFLOP/s.
        bandwidth_gb: memory bandwidth, GB/s.
        link_gb: bandwidth in one direction to the other devices of the node, GB/s.
        watts: thermal design power.
        idle_watts: power without work.
        efficiency: what matrix products reach beside those of a GPU; a site says it of its CPU nodes.
    """

    name: str
    memory_gb: float
    peak_tflops: float
    fp32_tflops: float
    bandwidth_gb: float
    link_gb: float
    watts: float
    idle_watts: float
    efficiency: float = 1.0

    def share(self, of_it: float) -> dict[str, float]:
        """What a part of the device has: a MIG slice, or a smaller device of its kind."""
        return {
            name: getattr(self, name) * of_it
            for name in ("fp32_tflops", "bandwidth_gb", "link_gb", "watts", "idle_watts")
        }


# Sources: NVIDIA's data sheets H100 (2023), H200 (2024), GH200 (2024), B200 (2024), A100 (2021), A30 (2021),
# L40S (2023); AMD's MI250X (2021; one of its two dies, which Slurm counts as a GPU) and MI300X (2023). The 94
# GB H100 has HBM2e, 2.4 TB/s; Snellius and Meta's Grand Teton use that variant. Idle power: what nvidia-smi
# shows on idle boards. The time model is compared with published runs on A100 and H100 alone.
DEVICES = (
    Device("h100", 80, 989, 67, 3350, 450, 700, 70),
    Device("h100_94", 94, 989, 67, 2400, 450, 700, 70),
    Device("h100_500w", 94, 989, 67, 2400, 450, 500, 70),
    Device("h100_pcie", 80, 756, 51, 2000, 300, 350, 50),
    Device("h200", 141, 989, 67, 4800, 450, 700, 75),
    Device("gh200", 96, 989, 67, 4000, 450, 700, 100),
    Device("b200", 180, 2250, 75, 8000, 900, 1000, 140),
    Device("a100_40", 40, 312, 19.5, 1555, 300, 400, 55),
    Device("a100_80", 80, 312, 19.5, 2039, 300, 400, 55),
    Device("a30", 24, 165, 10.3, 933, 100, 165, 30),
    Device("l40s", 48, 362, 91.6, 864, 32, 350, 35),
    Device("mi250x", 64, 191.5, 23.9, 1638, 50, 280, 45),
    Device("mi300x", 192, 1307, 163.4, 5300, 448, 750, 140),
)
COMPARED = ("h100", "a100")  # names that begin so have published runs in the tests
NEAR = 0.1  # relative: a peak and a memory within this are the sheet's own


def device(name: str) -> Device:
    """The device of a name.

    Raises:
        InputError: no sheet has that name.
    """
    for known in DEVICES:
        if known.name == name:
            return known
    names = ", ".join(known.name for known in DEVICES)
    raise InputError(
        f"cluster.site.gpu_model={name}: no such device; allowed are {names}. For another one leave it out "
        "and give site.peak_tflops and site.gpu_memory_gb, and site.gpu_watts and site.gpu_bandwidth_gb "
        "where you know them."
    )


def nearest(peak_tflops: float, memory_gb: float) -> Device:
    """The device of a peak and a memory; where no sheet has them, the nearest one in their proportion.

    Ties go to the sheet with most power, as of the H100's.
    """
    near = min(
        DEVICES,
        key=lambda one: (
            abs(one.peak_tflops - peak_tflops),
            abs(one.memory_gb - memory_gb),
            -one.watts,
        ),
    )
    if _is_near(near.peak_tflops, peak_tflops) and _is_near(near.memory_gb, memory_gb):
        return near
    fields = {**vars(near), **near.share(peak_tflops / near.peak_tflops)}
    name = f"a device like {near.name}"
    return Device(**{**fields, "name": name, "peak_tflops": peak_tflops, "memory_gb": memory_gb})


def _is_near(one: float, other: float) -> bool:
    return abs(one - other) <= NEAR * one
