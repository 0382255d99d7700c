"""What an hour costs: the rates of conf/cluster/*.yaml, found by a job's partition.

A site bills the largest share of a node that a job holds, whether of its GPUs, its cores or its memory, times
the price of a whole node.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_prep.errors import InputError

SITES = Path(__file__).resolve().parents[2] / "conf" / "cluster"


@dataclass(frozen=True)
class Rate:
    """The price of one partition.

    Attributes:
        unit: What the site calls its budget units.
        node_hour: Units for one hour of a whole node.
        gpus, cores, memory_mib: Of a whole node; 0 where unknown, and then without a share.
    """

    unit: str
    node_hour: float
    gpus: int
    cores: int
    memory_mib: int

    def per_hour(self, gpus: int, cpus: int, memory_mib: int | None) -> float:
        """Units per hour for an allocation of so many GPUs, cores and MiB over all its nodes."""
        held = ((gpus, self.gpus), (cpus, self.cores), (memory_mib or 0, self.memory_mib))
        return self.node_hour * max((amount / whole for amount, whole in held if whole), default=0.0)


class Rates:
    """The rates of every partition that a site's YAML names.

    Args:
        folder: Folder of cluster YAMLs.
    """

    def __init__(self, folder: Path = SITES):
        self.by_partition: dict[str, Rate] = {}
        for file in sorted(folder.glob("*.yaml")):
            self._read(file)
        units = sorted({rate.unit for rate in self.by_partition.values()})
        self.unit = units[0] if len(units) == 1 else "/".join(units) or "units"

    def _read(self, file: Path) -> None:
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise InputError(f"{file}: not readable as YAML: {error}") from error
        rate = rate_of(values) if isinstance(values, dict) else None
        partitions = str(values.get("partition") or "") if isinstance(values, dict) else ""
        if rate:
            self.by_partition.update(dict.fromkeys(filter(None, partitions.split(",")), rate))

    def units(
        self, partition: str, gpus: int, cpus: int, memory_mib: int | None, seconds: float | None
    ) -> float | None:
        """Units for holding an allocation so long; None without a rate for the partition or without a time.

        A job that names several partitions is counted at the first one that has a rate.
        """
        if seconds is None:
            return None
        for name in partition.split(","):
            if name in self.by_partition:
                return self.by_partition[name].per_hour(gpus, cpus, memory_mib) * seconds / 3600
        return None


def rate_of(values: dict[str, Any]) -> Rate | None:
    """The rate of one cluster YAML, or None when it gives none."""
    site = values.get("site") or {}
    gpus, cores = int(site.get("gpus") or 0), int(site.get("cores") or 0)
    gpu_rate, core_rate = site.get("gpu_hour_rate"), site.get("core_hour_rate")
    if gpu_rate and gpus:
        node_hour = float(gpu_rate) * gpus
    elif core_rate and cores:
        node_hour = float(core_rate) * cores
    else:
        return None
    memory = int(float(site.get("memory_gb") or 0) * 1024)
    return Rate(str(site.get("budget_unit") or "SBU"), node_hour, gpus, cores, memory)
