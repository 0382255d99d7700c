"""A footprint is measured where there is a counter, else modelled, and always says which."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from conf.plain import plain
from conf.schema.cluster import ClusterConfig, SiteConfig
from elm_megatron.planner import footprint

SITE = SiteConfig(gpu_model="h100", pue=1.1, grams_per_kwh=100, grid="a grid, 2026 (a source)")
GPUS = ClusterConfig("x", "slurm", "gpu", nodes=2, gpus_per_node=4, site=SITE)


def test_without_a_counter_it_is_modelled_by_device_and_utilisation() -> None:
    good, idle, unknown = (footprint.recorded(GPUS, 8, 64, 3600, mfu=mfu) for mfu in (0.4, 0.0, None))
    assert good.device_hours == 8 and not good.measured
    assert good.kwh == pytest.approx(8 * (70 + 0.85 * 630 + 200) / 1000 * 1.1)
    assert good.kwh == unknown.kwh > idle.kwh > 8 * 0.27 * 1.1
    assert good.co2_kg == pytest.approx(good.kwh * 0.1)
    assert good.basis.startswith("modelled: 806 W a h100 with its share of the node; PUE 1.1; ")
    assert good.basis.endswith("100 g CO2 per kWh (a grid, 2026 (a source))")


@pytest.mark.parametrize(
    ("method", "rest"),
    [("NVML, GPU", 8 * 0.2), ("EAR, whole nodes", 0.0)],
)
def test_a_counter_counts_and_what_it_does_not_see_is_added(method: str, rest: float) -> None:
    found = footprint.recorded(GPUS, 8, 64, 3600, 4.0, method)
    assert found.measured and found.kwh == pytest.approx((4.0 + rest) * 1.1)
    assert found.basis.startswith(f"measured by {method}")


def test_a_gpu_of_which_nothing_is_known_still_has_a_model() -> None:
    bare = replace(GPUS, site=SiteConfig())
    found = footprint.recorded(bare, 8, 64, 3600)
    assert found.kwh > 0 and "GPU of an unknown kind" in found.basis and "(Ember)" in found.basis


def test_cores_count_on_cpu_nodes() -> None:
    cpu = ClusterConfig("x", "slurm", cpus_per_task=16, site=SITE)
    assert footprint.cores_of(cpu, 4) == 64
    assert footprint.cores_of(replace(cpu, exclusive=True, site=replace(SITE, cores=128)), 4) == 128
    assert footprint.cores_of(ClusterConfig(), 4, here=2) == 2
    found = footprint.recorded(cpu, 4, 64, 1800)
    assert found.device_hours == 32 and found.kwh == pytest.approx(64 * 6.5625 / 1000 / 2 * 1.1)


def test_runs_of_earlier_versions_have_one_too() -> None:
    config = {"cluster": plain(GPUS)}
    record = {"seconds": 3600.0, "world_size": 8, "kwh": 4.0, "energy_method": "NVML, GPU"}
    assert footprint.of_record(record, config) == footprint.recorded(GPUS, 8, 8, 3600, 4.0, "NVML, GPU")
    kept = footprint.recorded(GPUS, 8, 64, 3600, 4.5, "NVML, GPU")
    assert footprint.of_record(record | {"footprint": asdict(kept)}, config) == kept
    assert footprint.of_record({}, config) is footprint.of_record(record, {}) is None
