"""The CUDA path on a real device: the same trainer with NCCL, Transformer Engine's layers, bf16 and fp8."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.elm_megatron.configs import pretrain_config, small_model
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
with_transformer_engine = pytest.mark.skipif(
    importlib.util.find_spec("transformer_engine") is None, reason="needs Transformer Engine"
)


MODEL = {"hidden_size": 256, "ffn_hidden_size": 512, "num_query_groups": 4}


def losses(
    small_data: Path, run_dir: Path, device: str, precision: str, ranks: int = 1, **changes: Any
) -> list[float]:
    """Train on ranks of their own and return the losses."""
    config = pretrain_config(run_dir, small_data, ranks, small_model(**MODEL), **changes)
    config.cluster.device = device
    config.train.precision = precision
    run = rank_functions.folder(config)
    pool = RankPool(ranks, run_dir)
    try:
        pool.run(ranks, rank_functions.train, config=config)
    finally:
        pool.close()
    return [row["loss"] for row in run.read_metrics()]


PATHS: dict[str, tuple[str, dict[str, Any]]] = {
    "fp32": ("fp32", {}),
    "bf16": ("bf16", {}),
    "recompute": ("bf16", {"recompute": "full"}),
    "recompute-selective": ("bf16", {"recompute": "selective"}),
    "z-loss": (
        "bf16",
        {"z_loss": 1e-2},
    ),  # the output layer with this suite's cross entropy, not the fused one
    "documents": ("bf16", {"reset_attention_mask": True}),  # attention over packed sequences
    "masked": ("bf16", {"eod_mask_loss": True}),
}


@pytest.mark.parametrize("path", PATHS)
def test_gpu_equals_cpu(path: str, small_data: Path, tmp_path: Path) -> None:
    """With Transformer Engine's layers where it is installed, else with torch's."""
    precision, changes = PATHS[path]
    on_gpu = losses(small_data, tmp_path / "gpu", "gpu", precision, **changes)
    on_cpu = losses(small_data, tmp_path / "cpu", "cpu", precision, **changes)
    assert on_gpu == pytest.approx(on_cpu, rel=1e-3 if precision == "fp32" else 2e-2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
@pytest.mark.parametrize("layout", [{"tp": 2}, {"tp": 2, "sp": True}, {"pp": 2}, {"cp": 2}, {}], ids=str)
def test_two_gpus_equal_one(layout: dict[str, Any], small_data: Path, tmp_path: Path) -> None:
    """NCCL between them; context parallelism through Transformer Engine's attention."""
    two = losses(small_data, tmp_path / "two", "gpu", "bf16", 2, **layout)
    assert two == pytest.approx(losses(small_data, tmp_path / "one", "gpu", "bf16"), rel=2e-2)


def test_a_run_of_a_gpu_goes_on_on_a_cpu(small_data: Path, tmp_path: Path) -> None:
    """A checkpoint of Transformer Engine's layers loads into torch's: the last steps are done again."""
    changes = {"save_every": 4}
    on_gpu = losses(small_data, tmp_path / "run", "gpu", "bf16", **changes)
    for step in ("step-00000008", "step-00000010"):
        (tmp_path / "run" / "checkpoints" / step / "manifest.json").unlink()
    again = losses(small_data, tmp_path / "run", "cpu", "bf16", **changes)
    assert again[:4] == on_gpu[:4]
    assert again[4:] == pytest.approx(on_gpu[4:], rel=2e-2)


@with_transformer_engine
def test_fp8_learns(small_data: Path, tmp_path: Path) -> None:
    found = losses(small_data, tmp_path / "run", "gpu", "fp8")
    assert found[-1] < 0.85 * found[0]
