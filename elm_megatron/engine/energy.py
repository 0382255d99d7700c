"""Energy used by this node's ranks, in kWh, from counters the machine has; never guessed.

NVML counts a GPU's millijoules, RAPL a CPU package's microjoules (readable by root on most systems). Where
neither can be read the answer is None and the method says so.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

RAPL = Path("/sys/class/powercap")
JOULES_PER_KWH = 3.6e6
SAMPLE_SECONDS = 20.0  # the smallest counters hold 65 kJ, which a package of 500 W uses in 131 s


class Package:
    """One CPU package's counter, added up across its wraps.

    Args:
        zone: its folder below `RAPL`.

    Raises:
        OSError: the counter cannot be read.
    """

    def __init__(self, zone: Path):
        self._counter = zone / "energy_uj"
        self._range = int((zone / "max_energy_range_uj").read_text(encoding="utf-8"))
        self._last = int(self._counter.read_text(encoding="utf-8"))
        self.microjoules = 0

    def sample(self) -> None:
        """Add what was used since the last sample; right as long as the counter wrapped at most once."""
        now = int(self._counter.read_text(encoding="utf-8"))
        self.microjoules += (now - self._last) % self._range
        self._last = now


def _packages() -> list[Package]:
    """All packages of this machine, or none where they cannot all be read.

    Chosen by name: a package's cores and memory are zones of their own, and so is the platform ("psys"),
    which has the packages in it.
    """
    zones = sorted(RAPL.glob("intel-rapl:[0-9]*"))
    try:
        return [
            Package(zone)
            for zone in zones
            if (zone / "name").read_text(encoding="utf-8").startswith("package")
        ]
    except OSError:
        return []


class EnergyMeter:
    """Reads the counters of one rank's device between its making and `kwh`.

    The counters of packages begin anew after minutes or hours, so a thread samples them until `stop`.

    Args:
        gpu: NVML's name of the rank's GPU; None where it computes on a CPU.
        local_rank: its index on the node; on CPUs only the first rank of a node counts the packages.
    """

    def __init__(self, gpu: str | None, local_rank: int):
        self.method = "not measured"
        self._gpu = gpu
        self._begin = self._read_nvml()
        self._packages = _packages() if gpu is None and local_rank == 0 else []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if self._begin is not None:
            self.method = "NVML, GPU"
        elif self._packages:
            self.method = "RAPL, CPU packages of the node"
            self._thread = threading.Thread(target=self._run, name="energy", daemon=True)
            self._thread.start()
        elif gpu is None and local_rank != 0:
            self.method = "counted by the node's first rank"

    def sample(self) -> None:
        """Add up what the packages used; the meter's thread does it in time.

        Raises:
            OSError: a counter cannot be read any more.
        """
        with self._lock:
            for package in self._packages:
                package.sample()

    def kwh(self) -> float | None:
        """Energy since the start; None when nothing could be read."""
        if self._packages:
            try:
                self.sample()
            except OSError:
                return None
            return sum(package.microjoules for package in self._packages) / 1e6 / JOULES_PER_KWH
        now = self._read_nvml()
        if now is None or self._begin is None:
            return None
        if now < self._begin:
            self.method = "not measured (the counter was set back)"
            return None
        return (now - self._begin) / JOULES_PER_KWH

    def stop(self) -> None:
        """End the thread; `kwh` still answers."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            with contextlib.suppress(OSError):  # `kwh` says so, should it last
                self.sample()

    def _read_nvml(self) -> float | None:
        """Joules of the GPU's counter."""
        if self._gpu is None:
            return None
        try:
            import pynvml  # nvidia-ml-py, in the extra gpu
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(self._gpu)
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        except pynvml.NVMLError:
            return None
