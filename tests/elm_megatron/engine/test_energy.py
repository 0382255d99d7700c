"""Energy from counters. NVML and RAPL's files are stand-ins here; the test marked gpu reads a real NVML."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from elm_megatron.engine import energy
from elm_megatron.engine.energy import EnergyMeter
from elm_megatron.model import device as devices

MINE, KWH = "GPU-2", 3.6e6


class Nvml:
    """Stands in for nvidia-ml-py: two GPUs, of which one reads well."""

    class NVMLError(Exception):
        """Whatever NVML refuses."""

    def __init__(self) -> None:
        self.millijoules = {MINE: 5_000_000_000}

    def nvmlInit(self) -> None:
        """Always there."""

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:
        return name

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if handle not in self.millijoules:
            raise self.NVMLError("Not Supported")
        return self.millijoules[handle]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    stand_in = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)
    return stand_in


WRAP = 10_000_000_000  # microjoules at which a counter of the fake tree begins anew


class Zone:
    """A fake powercap zone whose counter begins anew at `WRAP`, as the kernel's does."""

    def __init__(self, folder: Path, name: str):
        self._counter, self._total = folder / "energy_uj", 0
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{WRAP}\n")
        self.add(1_000_000)

    def add(self, microjoules: float) -> None:
        """Use so much energy."""
        self._total += int(microjoules)
        ready = self._counter.with_suffix(".tmp")  # a reader's thread must not find it half written
        ready.write_text(f"{self._total % WRAP}\n")
        ready.replace(self._counter)

    def remove(self) -> None:
        """Make the counter unreadable."""
        self._counter.unlink()


@pytest.fixture
def zones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Zone]:
    """Two CPU packages, a zone of the first one's cores, and the platform, which has the packages in it."""
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    names = {0: "package-0", "0:0": "core", 1: "psys", 2: "package-1"}
    return [Zone(tmp_path / f"intel-rapl:{number}", name) for number, name in names.items()]


@pytest.fixture
def meters() -> Iterator[Callable[[], EnergyMeter]]:
    """Makes meters of a node's first rank, on CPUs; they are stopped when the test ends."""
    made: list[EnergyMeter] = []

    def make() -> EnergyMeter:
        made.append(EnergyMeter(None, local_rank=0))
        return made[-1]

    yield make
    for meter in made:
        meter.stop()


def test_a_gpu_is_found_by_name_and_counts_from_the_start(nvml: Nvml):
    meter = EnergyMeter(MINE, local_rank=0)
    nvml.millijoules[MINE] += int(2 * KWH * 1e3)
    assert meter.kwh() == pytest.approx(2.0)
    assert meter.method == "NVML, GPU"


def test_a_gpu_that_does_not_count_is_not_measured(nvml: Nvml):
    meter = EnergyMeter("GPU-1", local_rank=0)
    assert meter.kwh() is None
    assert meter.method == "not measured"


def test_without_nvml_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    meter = EnergyMeter(MINE, local_rank=0)
    assert meter.kwh() is None
    assert meter.method == "not measured"


def test_a_gpu_whose_counter_was_set_back_is_not_measured(nvml: Nvml):
    meter = EnergyMeter(MINE, local_rank=0)
    nvml.millijoules[MINE] = 10
    assert meter.kwh() is None
    assert meter.method == "not measured (the counter was set back)"


def test_packages_are_added_and_nothing_else_is(zones: list[Zone], meters: Callable[[], EnergyMeter]):
    meter = meters()
    for zone in zones:
        zone.add(0.9 * WRAP)
    assert meter.kwh() == pytest.approx(2 * 0.9 * WRAP / 1e6 / KWH)
    assert meter.method == "RAPL, CPU packages of the node"


def test_counters_that_wrap_many_times_are_added_up(zones: list[Zone], meters: Callable[[], EnergyMeter]):
    """Each package at its own rate; the loop need not ask, as long as somebody samples between two wraps."""
    meter = meters()
    for _ in range(10):
        zones[0].add(0.7 * WRAP)
        zones[3].add(0.3 * WRAP)
        meter.sample()
    zones[0].add(0.5 * WRAP)
    assert meter.kwh() == pytest.approx((7 + 3 + 0.5) * WRAP / 1e6 / KWH)
    assert meter.kwh() == pytest.approx(10.5 * WRAP / 1e6 / KWH)  # asking again adds nothing


def test_a_meter_samples_by_itself_until_it_is_stopped(
    zones: list[Zone], meters: Callable[[], EnergyMeter], monkeypatch: pytest.MonkeyPatch
):
    sampled, rest = threading.Event(), EnergyMeter.sample

    def sample(meter: EnergyMeter) -> None:
        rest(meter)
        sampled.set()

    monkeypatch.setattr(energy, "SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr(EnergyMeter, "sample", sample)
    meter = meters()
    for _ in range(3):
        zones[0].add(0.6 * WRAP)
        for _ in range(2):  # the first may have read before the counter moved
            sampled.clear()
            assert sampled.wait(60)
    meter.stop()
    sampled.clear()
    assert not sampled.wait(0.2)
    assert meter.kwh() == pytest.approx(3 * 0.6 * WRAP / 1e6 / KWH)
    meter.stop()  # once more does no harm


def test_a_counter_that_cannot_be_read_any_more_is_not_measured(
    zones: list[Zone], meters: Callable[[], EnergyMeter]
):
    meter = meters()
    zones[3].remove()
    assert meter.kwh() is None


def test_without_readable_packages_nothing_is_guessed(zones: list[Zone], meters: Callable[[], EnergyMeter]):
    zones[0].remove()
    meter = meters()
    assert meter.kwh() is None
    assert meter.method == "not measured"


def test_a_node_is_counted_once(zones: list[Zone]):
    meter = EnergyMeter(None, local_rank=1)
    assert meter.kwh() is None
    assert meter.method == "counted by the node's first rank"
    meter.stop()


def test_a_cpu_has_no_name_in_nvml():
    assert devices.nvml_name(torch.device("cpu")) is None


def test_a_gpus_name_is_its_uuid(monkeypatch: pytest.MonkeyPatch):
    properties = SimpleNamespace(uuid="0b1c-2d")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert devices.nvml_name(torch.device("cuda", 1)) == "GPU-0b1c-2d"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_real_gpu_uses_energy():
    pytest.importorskip("pynvml")
    device = torch.device("cuda", 0)
    meter = EnergyMeter(devices.nvml_name(device), local_rank=0)
    a = torch.randn(8192, 8192, device=device)
    for _ in range(50):
        a = a @ a / 100
    torch.cuda.synchronize(device)
    assert meter.kwh() > 0
