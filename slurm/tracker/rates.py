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
from conf.schema.cluster import SiteConfig

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


@dataclass(frozen=True)
class Priced:
    """A rate, and where it holds.

    Attributes:
        file: the cluster's YAML.
        name: its `name`.
        slurm_cluster: its `site.slurm_cluster`, the ClusterName of slurm.conf, "" where it names none.
        rate: the price.
    """

    file: Path
    name: str
    slurm_cluster: str
    rate: Rate


class Rates:
    """The rates of every partition that a site's YAML names.

    Two sites may use the same name for a partition. A rate of the YAML that names the job's Slurm cluster in
    `site.slurm_cluster` counts first, then one of the YAML that has the cluster's name, then any other one;
    where several other ones differ, the partition has no rate.

    Args:
        folder: folder of cluster YAMLs.

    Attributes:
        unit: name of the budget's unit.
        unclear: partitions that several YAMLs price differently, and these files.

    Raises:
        InputError: a file is not YAML, or a rate is no number.
    """

    def __init__(self, folder: Path = SITES):
        self.folder = folder
        self.by_partition: dict[str, list[Priced]] = {}
        for file in sorted(folder.glob("*.yaml")):
            self._add(file)
        units = sorted({priced.rate.unit for found in self.by_partition.values() for priced in found})
        self.unit = units[0] if len(units) == 1 else "/".join(units) or "units"
        self.unclear: dict[str, list[str]] = {}
        # Thousands of jobs ask for the same.
        self._per_hour: dict[tuple[str, str, int, int, int | None], float | None] = {}

    def _add(self, file: Path) -> None:
        values = _read(file)
        site = values.get("site") or {}
        for partitions, rate in (
            (values.get("partition"), node_rate(site, f"{file}: ")),
            (values.get("cpu_partition"), core_rate(site, f"{file}: ")),
        ):
            for partition in str(partitions).split(",") if partitions and rate else ():
                name, cluster = str(values.get("name") or ""), str(site.get("slurm_cluster") or "")
                self.by_partition.setdefault(partition, []).append(Priced(file, name, cluster, rate))

    def units(
        self,
        partition: str,
        gpus: int,
        cpus: int,
        memory_mib: int | None,
        seconds: float | None,
        cluster: str = "",
    ) -> float | None:
        """Units for holding an allocation so long; None without a rate for the partition or without a time.

        A job that names several partitions is counted at the first one that has a rate.

        Args:
            partition: one name, or several separated by commas.
            gpus: of all nodes together.
            cpus: of all nodes together.
            memory_mib: of all nodes together.
            seconds: how long, None when that is not known.
            cluster: ClusterName of slurm.conf, "" when it is not known.
        """
        if seconds is None:
            return None
        key = (partition, cluster, gpus, cpus, memory_mib)
        if key not in self._per_hour:
            rates = (self._choose(name, cluster) for name in partition.split(","))
            rate = next(filter(None, rates), None)
            self._per_hour[key] = rate and rate.per_hour(gpus, cpus, memory_mib)
        price = self._per_hour[key]
        return None if price is None else price * seconds / 3600

    def _choose(self, partition: str, cluster: str) -> Rate | None:
        known = self.by_partition.get(partition, [])
        groups = (
            [one for one in known if cluster and one.slurm_cluster == cluster],
            [one for one in known if cluster and not one.slurm_cluster and one.name == cluster],
            [one for one in known if not one.slurm_cluster or not cluster],
        )
        found = next(filter(None, groups), [])
        if len({one.rate for one in found}) > 1:
            self.unclear[partition] = [one.file.name for one in found]
            return None
        return found[0].rate if found else None

    def notes(self) -> list[str]:
        """A sentence on each partition whose rate is unclear, as far as one was asked for."""
        return [
            f"partition {partition} has different rates in {' and '.join(names)}: name the Slurm cluster "
            "of each in site.slurm_cluster"
            for partition, names in self.unclear.items()
        ]


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


def node_rate(site: dict[str, Any], where: str = "") -> Rate | None:
    """The price of the site's own nodes, or None when it names none.

    Args:
        site: the `site` of a cluster's YAML.
        where: its file, for the error.

    Raises:
        InputError: a value is no number.
    """
    gpus, cores = int(_number(site, "gpus", where)), int(_number(site, "cores", where))
    by_gpu = _number(site, "gpu_hour_rate", where) * gpus
    by_core = _number(site, "core_hour_rate", where) * cores
    if not by_gpu and not by_core:
        return None
    memory = int(_number(site, "memory_gb", where) * 1024)
    return Rate(_unit_of(site), by_gpu or by_core, gpus, cores, memory)


def core_rate(site: dict[str, Any], where: str = "") -> Rate | None:
    """The price of a partition without GPUs, by the core, because its nodes' size is not in the YAML."""
    price = _number(site, "core_hour_rate", where)
    return Rate(_unit_of(site), price, 0, 1, 0) if price else None


def _number(site: dict[str, Any], key: str, where: str) -> float:
    value = site.get(key)
    try:
        found = float(value or 0)
    except (TypeError, ValueError):
        found = -1.0
    if not 0 <= found < float("inf"):
        raise InputError(
            f"{where}site.{key}: found {value!r}; allowed is a number from 0 on, without a unit "
            "(site.budget_unit names that of the rates)"
        )
    return found


def _unit_of(site: dict[str, Any]) -> str:
    return str(site.get("budget_unit") or SiteConfig.budget_unit)
