"""Energy from counters. NVML and RAPL's files are stand-ins here; the test marked gpu reads a real NVML."""

from __future__ import annotations

import sys
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


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Two CPU packages, one with a zone for its cores, which is part of it."""
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    counters = [tmp_path / zone / "energy_uj" for zone in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1")]
    for counter in counters:
        counter.parent.mkdir()
        counter.write_text("1000000\n")
    return counters


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


def test_packages_are_added_and_their_parts_are_not(packages: list[Path]):
    meter = EnergyMeter(None, local_rank=0)
    for counter in packages:
        counter.write_text(str(1_000_000 + int(0.5 * KWH * 1e6)))
    assert meter.kwh() == pytest.approx(1.0)
    assert meter.method == "RAPL, CPU packages of the node"


def test_a_node_is_counted_once(packages: list[Path]):
    meter = EnergyMeter(None, local_rank=1)
    assert meter.kwh() is None
    assert meter.method == "counted by the node's first rank"


def test_a_counter_that_wrapped_is_not_measured(packages: list[Path]):
    meter = EnergyMeter(None, local_rank=0)
    packages[0].write_text("10")
    assert meter.kwh() is None
    assert meter.method == "not measured (a counter wrapped)"


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
