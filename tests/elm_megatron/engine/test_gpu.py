"""The CUDA path on a real device: the same trainer with NCCL, Transformer Engine's layers, bf16 and fp8."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.elm_megatron.configs import pretrain_config, small_model
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
with_transformer_engine = pytest.mark.skipif(
    importlib.util.find_spec("transformer_engine") is None, reason="needs Transformer Engine"
)


MODEL = {"hidden_size": 256, "ffn_hidden_size": 512, "num_query_groups": 4}
RATE = {"lr": 3e-4, "min_lr": 3e-4}  # at 3e-3 bf16 and fp32 drift apart by 5% within ten steps
Curve = list[tuple[float, float]]  # (loss, norm of the gradient) by step


@pytest.fixture(scope="module")
def gpu_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankPool]:
    """Ranks on GPUs, one set for all tests; the CPU's, with their stand-in for CUDA, are others."""
    pool = RankPool(min(2, torch.cuda.device_count()), tmp_path_factory.mktemp("gpus"))
    yield pool
    pool.close()


def curve(
    pool: RankPool, data: Path, run_dir: Path, device: str, precision: str, ranks: int = 1, **changes: Any
) -> Curve:
    """Train; losses and gradient norms. A wrong factor in the gradients shows in the norms alone."""
    config = pretrain_config(run_dir, data, ranks, small_model(**MODEL), **{**RATE, **changes})
    config.cluster.device = device
    config.train.precision = precision
    run = rank_functions.folder(config)
    pool.run(ranks, rank_functions.train, config=config)
    return [(row["loss"], row["grad_norm"]) for row in run.read_metrics()]


def agree(found: Curve, expected: Curve, loss: float, norm: float = 5e-2) -> None:
    """Losses and gradient norms within these relative distances."""
    for column, rel in ((0, loss), (1, norm)):
        assert [row[column] for row in found] == pytest.approx([row[column] for row in expected], rel=rel)


PATHS: dict[str, tuple[str, dict[str, Any]]] = {
    "fp32": ("fp32", {}),
    "bf16": ("bf16", {}),
    "recompute": ("bf16", {"recompute": "full"}),
    "recompute-selective": ("bf16", {"recompute": "selective"}),
    "z-loss": ("bf16", {"z_loss": 1e-2}),  # this suite's cross entropy, not the fused one
    "documents": ("bf16", {"reset_attention_mask": True}),  # attention over packed sequences
    "masked": ("bf16", {"eod_mask_loss": True}),
}


def test_the_kernels_of_this_gpu_are_right() -> None:
    """Values and gradients of each beside torch's in fp32, directly."""
    command = [sys.executable, "-m", "elm_megatron.model.kernels"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.count(" checked ") == 6, done.stdout + done.stderr


@pytest.mark.parametrize("path", PATHS)
def test_gpu_equals_cpu(
    path: str, gpu_ranks: RankPool, ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    """With Transformer Engine's layers where it is installed, else with torch's."""
    precision, changes = PATHS[path]
    on_gpu = curve(gpu_ranks, small_data, tmp_path / "gpu", "gpu", precision, **changes)
    on_cpu = curve(ranks, small_data, tmp_path / "cpu", "cpu", precision, **changes)
    agree(on_gpu, on_cpu, 1e-3 if precision == "fp32" else 5e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
@pytest.mark.parametrize("layout", [{"tp": 2}, {"tp": 2, "sp": True}, {"pp": 2}, {"cp": 2}, {}], ids=str)
def test_two_gpus_equal_one(
    layout: dict[str, Any], gpu_ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    """NCCL between them; context parallelism through Transformer Engine's attention."""
    two = curve(gpu_ranks, small_data, tmp_path / "two", "gpu", "bf16", 2, **layout)
    agree(two, curve(gpu_ranks, small_data, tmp_path / "one", "gpu", "bf16"), 5e-3)


def test_a_run_of_a_gpu_goes_on_on_a_cpu(
    gpu_ranks: RankPool, ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    """A checkpoint of Transformer Engine's layers loads into torch's: the last steps are done again."""
    on_gpu = curve(gpu_ranks, small_data, tmp_path / "run", "gpu", "bf16", save_every=4)
    for step in ("step-00000008", "step-00000010"):
        (tmp_path / "run" / "checkpoints" / step / "manifest.json").unlink()
    again = curve(ranks, small_data, tmp_path / "run", "cpu", "bf16", save_every=4)
    assert again[:4] == on_gpu[:4]
    agree(again[4:], on_gpu[4:], 5e-3)


@with_transformer_engine
def test_fp8_learns_as_bf16_does(gpu_ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    fp8 = curve(gpu_ranks, small_data, tmp_path / "fp8", "gpu", "fp8")
    agree(fp8, curve(gpu_ranks, small_data, tmp_path / "bf16", "gpu", "bf16"), 2e-2, norm=2e-1)
