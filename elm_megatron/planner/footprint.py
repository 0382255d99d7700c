"""Energy and CO2 of a job: measured where its machine has counters, else modelled and said to be so.

    watts of a device   idle + load · (design power - idle)
    load                BUSY + (LOAD - BUSY) · MFU / GOOD_MFU, at most LOAD; LOAD where no MFU is known
    energy              (devices · watts + the rest of their nodes) · hours · PUE
    CO2                 energy · grams per kWh of the grid

A device's counters (NVML, RAPL) see the device alone; the rest of its node is modelled. EAR sees whole nodes.
Torch-free.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from conf import typed
from conf.errors import InputError
from conf.schema.cluster import ClusterConfig, SiteConfig
from elm_megatron.planner.devices import Device
from elm_megatron.planner.inputs import sheet_of

LOAD = 0.85  # of the span between idle and design power, while a device trains at GOOD_MFU or better
GOOD_MFU = 0.40
BUSY = 0.25  # of that span, while it waits for memory or others: an assumption
HOST_WATTS = 200  # of processors, memory, network and fans, for one GPU
# AMD's data sheet of the EPYC 7H12 ("Rome"): 280 W for 64 cores. Half as much again for the rest of the node.
CORE_WATTS = 280 / 64
REST_OF_CPU_NODE = 0.5
# SURF's data centre in Amsterdam states a PUE of 1.19 (surf.nl, "Datacenter: een groen onderkomen").
PUE = 1.19
# The Netherlands in 2023, all sources, life cycle: Ember, through Our World in Data.
GRAMS_PER_KWH = 268
GRID = "the Netherlands, 2023 (Ember)"
FIELD = "footprint"  # of run.json
UNKNOWN_GPU = Device("GPU of an unknown kind", 40, 312, 19.5, 1555, 300, 400, 55)


@dataclass(frozen=True)
class Footprint:
    """What a job takes from the grid.

    Attributes:
        device_hours: of GPUs, or of CPU cores where it used no GPU.
        kwh: energy, the data centre's overhead included.
        co2_kg: CO2 equivalent.
        basis: how both are known, in one phrase.
        measured: whether a counter was read.
    """

    device_hours: float
    kwh: float
    co2_kg: float
    basis: str
    measured: bool = False


def grid_of(site: SiteConfig) -> tuple[float, float, str]:
    """PUE, grams of CO2 per kWh, and where these come from."""
    pue = PUE if site.pue is None else site.pue
    if site.grams_per_kwh is None:
        return pue, GRAMS_PER_KWH, GRID
    return pue, site.grams_per_kwh, site.grid or "the site's YAML"


def modelled(
    device: Device, devices: int, hours: float, site: SiteConfig, mfu: float | None = None
) -> Footprint:
    """The footprint of `devices` GPUs that train for `hours` wall hours."""
    load = LOAD if mfu is None else min(LOAD, BUSY + (LOAD - BUSY) * mfu / GOOD_MFU)
    watts = device.idle_watts + load * (device.watts - device.idle_watts) + HOST_WATTS
    basis = f"modelled: {watts:.0f} W a {device.name} with its share of the node"
    return _at_site(site, devices * hours, devices * watts / 1000 * hours, basis)


def planned(cluster: ClusterConfig, ranks: int, hours: float) -> Footprint:
    """The footprint of a job that is to train for `hours` wall hours."""
    return recorded(cluster, ranks, cores_of(cluster, ranks, os.cpu_count()), 3600 * hours)


def of_cores(cores: int, hours: float, site: SiteConfig) -> Footprint:
    """The footprint of CPU cores that compute for `hours` wall hours."""
    watts = CORE_WATTS * (1 + REST_OF_CPU_NODE)
    basis = f"modelled: {watts:.1f} W a core with its share of the node"
    return _at_site(site, cores * hours, cores * watts / 1000 * hours, basis)


def recorded(
    cluster: ClusterConfig,
    ranks: int,
    cores: int,
    seconds: float,
    kwh: float | None = None,
    method: str = "",
    mfu: float | None = None,
) -> Footprint:
    """The footprint of a job that ran.

    Args:
        cluster: where it ran.
        ranks: of the job; each has a GPU where it used any.
        cores: of the job.
        seconds: wall time of all its attempts.
        kwh: what a counter measured; None where there was none.
        method: which counter: `NVML…`, `RAPL…` or `EAR…`.
        mfu: model FLOPs over the peak, where it is known.
    """
    hours, site = seconds / 3600, cluster.site
    on_gpus = cluster.device == "gpu"
    device_hours = (ranks if on_gpus else cores) * hours
    if kwh is None:
        if not on_gpus:
            return of_cores(cores, hours, site)
        return modelled(_sheet(cluster), ranks, hours, site, mfu)
    if method.startswith("EAR"):
        return _at_site(site, device_hours, kwh, f"measured by {method}", True)
    rest = ranks * HOST_WATTS / 1000 * hours if on_gpus else REST_OF_CPU_NODE * kwh
    basis = f"measured by {method}, and {rest:.3g} kWh modelled for the rest of the nodes"
    return _at_site(site, device_hours, kwh + rest, basis, True)


def of_record(record: dict[str, Any], config: dict[str, Any]) -> Footprint | None:
    """The footprint of a run by its run.json and config.yaml.

    Runs of earlier versions have none in run.json: theirs follows from what they have.

    Returns:
        None for a run without a time, or on a cluster whose settings cannot be read.
    """
    try:
        kept = record.get(FIELD)
        if kept and kept["measured"] == (record.get("kwh") is not None):
            return Footprint(**{key: kept[key] for key in asdict(Footprint(0, 0, 0, ""))})
        seconds, ranks = record["seconds"], record["world_size"]
        cluster = typed.build(ClusterConfig, config["cluster"])
        kwh, method = record.get("kwh"), str(record.get("energy_method") or "an unknown counter")
        return recorded(cluster, ranks, cores_of(cluster, ranks), float(seconds), kwh, method)
    except (InputError, KeyError, TypeError, ValueError):
        return None


def _sheet(cluster: ClusterConfig) -> Device:
    """The GPU of a cluster, or what stands for one of which its YAML says nothing."""
    try:
        return sheet_of(cluster)
    except InputError:
        return UNKNOWN_GPU


def cores_of(cluster: ClusterConfig, ranks: int, here: int | None = None) -> int:
    """Cores of a job.

    Args:
        here: those of this machine, for a local job; None: one for each rank.
    """
    if cluster.executor == "local" and here:
        return here
    if cluster.exclusive and cluster.site.cores:
        return cluster.nodes * cluster.site.cores
    return ranks * (cluster.cpus_per_task or 1)


def _at_site(
    site: SiteConfig, device_hours: float, kwh: float, basis: str, measured: bool = False
) -> Footprint:
    pue, grams, grid = grid_of(site)
    said = f"{basis}; PUE {pue:g}; {grams:g} g CO2 per kWh ({grid})"
    return Footprint(device_hours, kwh * pue, kwh * pue * grams / 1000, said, measured)
