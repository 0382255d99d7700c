"""What runs on a GPU alone, by names and order; CUDA is a stand-in here. Real ones train in test_gpu.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from conf.schema.parallel import ParallelConfig
from elm_megatron.model import device as devices
from elm_megatron.model import known_warnings, llama
from tests.elm_megatron.configs import small_model

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


class Event:
    """Stands in for a CUDA event; each is recorded one second after the one before."""

    recorded = 0

    def __init__(self, enable_timing: bool = False):
        assert enable_timing
        self.at: int | None = None

    def record(self) -> None:
        Event.recorded += 1
        self.at = Event.recorded

    def elapsed_time(self, later: Event) -> float:
        """Milliseconds."""
        return 1e3 * (later.at - self.at)


def test_a_gpus_time_is_taken_by_events_of_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    watch = devices.Stopwatch(GPU)
    watch.start()
    watch.stop()
    assert watch.seconds() == 1.0


def test_a_cpus_time_is_the_hosts() -> None:
    watch = devices.Stopwatch(CPU)
    watch.start()
    watch.stop()
    assert 0.0 <= watch.seconds() < 1.0


class Tensor:
    """Stands in for one that can be pinned; remembers what is done to it."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def pin_memory(self) -> Tensor:
        self.done.append("pinned")
        return self

    def to(self, device: torch.device, non_blocking: bool) -> Tensor:
        self.done.append((device, non_blocking))
        return self


def test_batches_go_to_a_gpu_from_pinned_memory() -> None:
    assert devices.moved(Tensor(), GPU).done == ["pinned", (GPU, True)]
    assert devices.moved(Tensor(), CPU).done == []


HOUSE = Path(__file__).resolve().parents[3]
ASKS = re.compile(r"torch\.cuda\b|\.is_cuda\b|[\"']cuda[\"':]|\.pin_memory|pin_memory=")


def test_no_other_module_asks_torch_about_devices() -> None:
    """`cuda_on_cpu.py` answers for CUDA; all others ask `device.py`."""
    rooms = ("conf", "data_prep", "elm_megatron", "slurm", "launch")
    files = [path for room in rooms for path in (HOUSE / room).rglob("*.py")]
    asking = [
        str(path.relative_to(HOUSE))
        for path in files
        if ASKS.search(path.read_text()) and path.name not in ("device.py", "cuda_on_cpu.py")
    ]
    assert len(files) > 100 and asking == []


def test_fp32_is_never_rounded_to_tf32() -> None:
    """NVIDIA's images set this override, which torch reads when it is imported."""
    code = (
        "import os, torch; assert torch.get_float32_matmul_precision() != 'highest';"
        "from elm_megatron.model import device; device.prepare('cpu', 0);"
        "print(torch.get_float32_matmul_precision(), os.environ['TORCH_ALLOW_TF32_CUBLAS_OVERRIDE'])"
    )
    env = {**os.environ, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1", "PYTHONPATH": str(HOUSE)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["highest", "0"], done.stderr


def test_only_known_messages_are_hidden() -> None:
    """megatron-core's warning of wrong gradients in Transformer Engine's cross entropy was hidden too."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        known_warnings.hide()
        for text in (
            "Apex is not installed. Falling back to Torch Norm",
            "cross_entropy_fusion_impl='te' gives wrong gradients with this Transformer Engine",
        ):
            warnings.warn_explicit(text, UserWarning, "megatron/core/x.py", 1, module="megatron.core.x")
    assert [str(one.message)[:25] for one in shown] == ["cross_entropy_fusion_impl"]


def test_fp8_scales_need_no_history_that_a_resumed_run_would_lack() -> None:
    model = small_model()
    assert llama.transformer_config(model, ParallelConfig(), "fp8").fp8_recipe == "tensorwise"
    assert llama.transformer_config(model, ParallelConfig(), "bf16").fp8 is None


def test_stages_do_not_stop_the_host_after_every_exchange() -> None:
    assert not llama.transformer_config(small_model(), ParallelConfig(pp=2), "bf16").batch_p2p_sync


@pytest.mark.parametrize(
    ("name", "bf16", "fp8", "fp32"),
    [
        ("NVIDIA H100 80GB HBM3", 989, 1979, 67),
        ("NVIDIA H100 PCIe", 756, 1513, 51),
        ("NVIDIA H100 NVL", 835, 1670, 60),
        ("NVIDIA H200", 989, 1979, 67),
        ("NVIDIA H200 NVL", 835, 1670, 60),
        ("NVIDIA A100-SXM4-80GB", 312, 312, 19.5),
        ("NVIDIA A100 80GB PCIe", 312, 312, 19.5),
    ],
)
def test_a_gpus_peak_is_its_own_data_sheets(
    name: str, bf16: float, fp8: float, fp32: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    peaks = [devices.peak_flops(GPU, precision) for precision in ("bf16", "fp8", "fp32")]
    assert peaks == [bf16 * 1e12, fp8 * 1e12, fp32 * 1e12]


def test_an_unknown_gpu_has_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X1")
    assert devices.peak_flops(GPU, "bf16") is None
