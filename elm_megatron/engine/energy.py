"""Energy used by this node's ranks, in kWh, from counters the machine has; never guessed.

NVML counts a GPU's millijoules, RAPL a CPU package's microjoules (readable by root on most systems). Where
neither can be read the answer is None and the method says so.
"""

from __future__ import annotations

from pathlib import Path

RAPL = Path("/sys/class/powercap")
JOULES_PER_KWH = 3.6e6


class EnergyMeter:
    """Reads the counters of one rank's device between `start` and `kwh`.

    Args:
        gpu: NVML's name of the rank's GPU; None where it computes on a CPU.
        local_rank: its index on the node; on CPUs only the first rank of a node counts the packages.
    """

    def __init__(self, gpu: str | None, local_rank: int):
        self._gpu, self._local_rank = gpu, local_rank
        self.method = "not measured"
        self._begin = self._read()

    def _read(self) -> list[float]:
        """Joules of each counter."""
        if self._gpu:
            return self._read_nvml(self._gpu)
        if self._local_rank != 0:
            self.method = "counted by the node's first rank"
            return []
        zones = sorted(RAPL.glob("intel-rapl:[0-9]*/energy_uj"))
        try:
            joules = [int(zone.read_text()) / 1e6 for zone in zones if zone.parent.name.count(":") == 1]
        except OSError:
            return []
        if joules:
            self.method = "RAPL, CPU packages of the node"
        return joules

    def _read_nvml(self, gpu: str) -> list[float]:
        try:
            import pynvml  # nvidia-ml-py, in the extra gpu
        except ImportError:
            return []
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(gpu)
            joules = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        except pynvml.NVMLError:
            return []
        self.method = "NVML, GPU"
        return [joules]

    def kwh(self) -> float | None:
        """Energy since the start; None when nothing could be read."""
        now = self._read()
        if not now or len(now) != len(self._begin):
            return None
        used = [b - a for a, b in zip(self._begin, now, strict=True)]
        if any(joules < 0 for joules in used):
            self.method = "not measured (a counter wrapped)"
            return None
        return sum(used) / JOULES_PER_KWH
