"""What an hour costs: the rates of conf/cluster/*.yaml, found by a job's partition.

A site bills the largest share of a node that a job holds, whether of its GPUs, its cores or its memory, times
the price of a whole node.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conf.errors import InputError

SITES = Path(__file__).resolve().parents[2] / "conf" / "cluster"


@dataclass(frozen=True)
class Rate:
    """The price of one partition.

    Attributes:
        unit: what the site calls its budget units.
        node_hour: units for one hour of a whole node.
        gpus, cores, memory_mib: of a whole node; 0 where unknown, and then without a share.
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
        folder: folder of cluster YAMLs.
    """

    def __init__(self, folder: Path = SITES):
        self.folder = folder
        self.by_partition: dict[str, Rate] = {}
        for file in sorted(folder.glob("*.yaml")):
            self._read(file)
        units = sorted({rate.unit for rate in self.by_partition.values()})
        self.unit = units[0] if len(units) == 1 else "/".join(units) or "units"

    def _read(self, file: Path) -> None:
        values = _read(file)
        site = values.get("site") or {}
        for partitions, rate in (
            (values.get("partition"), node_rate(site)),
            (values.get("cpu_partition"), core_rate(site)),
        ):
            if partitions and rate:
                self.by_partition.update(dict.fromkeys(str(partitions).split(","), rate))

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


def _read(file: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A cluster's YAML with what it inherits by `defaults: [other]`, its own values winning.

    Raises:
        InputError: the file is missing or not readable as YAML.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file}: not readable as YAML ({error})") from error
    if not isinstance(values, dict):
        return {}
    whole: dict[str, Any] = {}
    for name in values.get("defaults") or []:
        other = file.with_name(f"{name}.yaml")
        if isinstance(name, str) and other not in (*seen, file):
            whole = _merged(whole, _read(other, (*seen, file)))
    return _merged(whole, values)


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Two levels are enough: the cluster's keys, and those of its `site`."""
    site = (under.get("site") or {}) | (over.get("site") or {})
    return under | over | ({"site": site} if site else {})


def node_rate(site: dict[str, Any]) -> Rate | None:
    """The price of the site's own nodes, or None when it names none."""
    gpus, cores = int(site.get("gpus") or 0), int(site.get("cores") or 0)
    by_gpu = float(site.get("gpu_hour_rate") or 0) * gpus
    by_core = float(site.get("core_hour_rate") or 0) * cores
    if not by_gpu and not by_core:
        return None
    memory = int(float(site.get("memory_gb") or 0) * 1024)
    return Rate(_unit_of(site), by_gpu or by_core, gpus, cores, memory)


def core_rate(site: dict[str, Any]) -> Rate | None:
    """The price of a partition without GPUs, by the core, because its nodes' size is not in the YAML."""
    price = float(site.get("core_hour_rate") or 0)
    return Rate(_unit_of(site), price, 0, 1, 0) if price else None


def _unit_of(site: dict[str, Any]) -> str:
    return str(site.get("budget_unit") or "SBU")
