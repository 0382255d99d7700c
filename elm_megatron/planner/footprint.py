"""Energy and CO2 of a job that was not measured, modelled from its devices. Torch-free.

    watts of a device   idle + LOAD · (design power - idle)
    energy              (devices · watts + hosts) · hours · PUE
    CO2                 energy · grams per kWh of the grid

A figure of this module is an estimate, and whoever shows it says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema.cluster import SiteConfig
from elm_megatron.planner.devices import Device

LOAD = 0.85  # of the span between idle and design power, while a device trains
HOST_WATTS = 200  # of processors, memory, network and fans, for one device
# SURF's data centre in Amsterdam states a PUE of 1.19 (surf.nl, "Datacenter: een groen onderkomen").
PUE = 1.19
# The Netherlands in 2023, all sources, life cycle: Ember, through Our World in Data.
GRAMS_PER_KWH = 268
GRID = "the Netherlands, 2023 (Ember)"


@dataclass(frozen=True)
class Footprint:
    """What a job takes from the grid.

    Attributes:
        kwh: energy, the data centre's overhead included.
        co2_kg: CO2 equivalent.
        basis: how both are known, in one phrase.
    """

    kwh: float
    co2_kg: float
    basis: str


def modelled(
    device: Device, devices: int, hours: float, pue: float = PUE, grams_per_kwh: float = GRAMS_PER_KWH
) -> Footprint:
    """The footprint of `devices` that train for `hours` wall hours."""
    watts = device.idle_watts + LOAD * (device.watts - device.idle_watts) + HOST_WATTS
    kwh = devices * watts / 1000 * hours * pue
    basis = f"modelled: {watts:.0f} W a {device.name} with its share of the node, PUE {pue:g}"
    return Footprint(kwh, kwh * grams_per_kwh / 1000, basis)


def of_site(site: SiteConfig, device: Device, devices: int, hours: float) -> Footprint:
    """The footprint at a site, with its PUE and its grid where its YAML names them."""
    pue = PUE if site.pue is None else site.pue
    grams = GRAMS_PER_KWH if site.grams_per_kwh is None else site.grams_per_kwh
    return modelled(device, devices, hours, pue, grams)
