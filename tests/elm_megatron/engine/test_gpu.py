"""The CUDA path on a real device: the same trainer with NCCL, Transformer Engine's layers, bf16 and fp8."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tests.elm_megatron.configs import pretrain_config, small_model
from tests.elm_megatron.engine import cases
from tests.elm_megatron.rank_pool import RankPool

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
with_transformer_engine = pytest.mark.skipif(
    importlib.util.find_spec("transformer_engine") is None, reason="needs Transformer Engine"
)


def losses(small_data: Path, folder: Path, device: str, precision: str) -> list[float]:
    """Train ten steps on one rank of its own and return the losses."""
    model = small_model(hidden_size=256, ffn_hidden_size=512, num_query_groups=4)
    config = pretrain_config(folder / f"{device}-{precision}", small_data, 1, model)
    config.cluster.device = device
    config.train.precision = precision
    run = cases.folder(config)
    pool = RankPool(1, folder)
    try:
        pool.run(1, cases.train, config=config)
    finally:
        pool.close()
    return [row["loss"] for row in run.read_metrics()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gpu_equals_cpu(precision: str, small_data: Path, tmp_path: Path) -> None:
    on_gpu = losses(small_data, tmp_path, "gpu", precision)
    on_cpu = losses(small_data, tmp_path, "cpu", precision)
    assert on_gpu == pytest.approx(on_cpu, rel=1e-3 if precision == "fp32" else 2e-2)


@with_transformer_engine
def test_fp8_learns(small_data: Path, tmp_path: Path) -> None:
    found = losses(small_data, tmp_path, "gpu", "fp8")
    assert found[-1] < 0.85 * found[0]
