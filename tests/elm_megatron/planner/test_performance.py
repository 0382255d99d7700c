"""The time model against published rows: one set of constants, device sheets alone, each row within 15%."""

from __future__ import annotations

from dataclasses import replace

import pytest

from elm_megatron.planner.devices import device
from elm_megatron.planner.performance import Layout, Shape, mfu, step_time, tokens_per_second

# Megatron-LM's README, table of July 2024 (images/model_table.png): H100 80 GB, vocabulary 131,072,
# sequence 4096, GELU, untied, no recompute. MFU counts attention without the causal half. The table does
# not name the micro-batch: batch size / data-parallel size is 4 (8 with pp=2), which is taken as one micro-
# batch of 4, and 8 of 1 with pp=2.
GPT_2B = Shape(2048, 8192, 24, 16, 16, 131072, gated=False)
GPT_7B = Shape(4096, 16384, 30, 32, 32, 131072, gated=False)
GPT_70B = Shape(8192, 32768, 84, 64, 64, 131072, gated=False)
# llm-foundry, scripts/train/benchmarking/README.md: MPT 1b, FSDP full shard, sequence 2048, no
# checkpointing; MFU without the causal half.
MPT_1B = Shape(2048, 8192, 24, 16, 16, 50368, gated=False)
# TinyLlama's README: 16 A100-40G, FSDP, fused kernels, 16k tokens a GPU, batch 2M tokens; MFU with the
# causal half (24k tokens/s a GPU are 56% only so).
TINY_LLAMA = Shape(2048, 5632, 22, 32, 4, 32000)
# torchtitan, benchmarks/llama3_h100_202412_torchtitan.md, table 1: H100 96 GB with HBM2e at 500 W, FSDP
# without torch.compile, local batch 2, sequence 8192, selective checkpointing (every second matrix product
# computed again).
LLAMA_8B = Shape(4096, 14336, 32, 32, 8, 128256)

UTILISATION = [
    ("h100", GPT_2B, Layout(48, 8, 4, 192, 4096), False, 0.41),
    ("h100", GPT_7B, Layout(96, 8, 4, 192, 4096, tp=2), False, 0.47),
    ("h100", GPT_70B, Layout(768, 8, 1, 384, 4096, tp=8, pp=2), False, 0.42),
    ("h100", MPT_1B, Layout(8, 8, 14, 112, 2048, sharded=True), False, 0.418),
    ("a100_80", MPT_1B, Layout(8, 8, 14, 448, 2048, sharded=True), False, 0.599),
    ("a100_40", TINY_LLAMA, Layout(16, 8, 8, 1024, 2048, sharded=True, network_gb=200), True, 0.56),
]


@pytest.mark.parametrize(
    ("name", "shape", "layout", "causal", "published"),
    UTILISATION,
    ids=["gpt-1.7b", "gpt-7.1b", "gpt-70b", "mpt-1b-h100", "mpt-1b-a100", "tinyllama"],
)
def test_published_utilisation(
    name: str, shape: Shape, layout: Layout, causal: bool, published: float
) -> None:
    sheet = device(name)
    found = mfu(shape, layout, sheet, step_time(shape, layout, sheet).total, causal)
    assert found == pytest.approx(published, rel=0.15)


def test_published_throughput() -> None:
    layout = Layout(8, 8, 2, 16, 8192, recompute="half_products", sharded=True, fused=False)
    seconds = step_time(LLAMA_8B, layout, device("h100_500w")).total
    assert tokens_per_second(layout, seconds) / layout.gpus == pytest.approx(5762, rel=0.15)


def test_sizes_of_the_published_models() -> None:
    """The shapes are those of the rows: their weights are what the rows name."""
    for shape, billions in ((GPT_2B, 1.7), (GPT_7B, 7.1), (GPT_70B, 70), (TINY_LLAMA, 1.1), (LLAMA_8B, 8.0)):
        weights = shape.layers * shape.layer_weights() + 2 * shape.vocabulary * shape.hidden
        assert weights / 1e9 == pytest.approx(billions, rel=0.06)


def test_what_costs_time() -> None:
    """More nodes, smaller micro-batches, recompute, tensor parallelism and stages never make a GPU faster."""
    sheet, layout = device("h100_94"), Layout(4, 4, 4, 256, 2048)
    shape = Shape(2048, 5120, 16, 32, 32, 32000)
    base = tokens_per_second(layout, step_time(shape, layout, sheet).total) / layout.gpus
    for change in (
        {"gpus": 32, "network_gb": 25},
        {"micro_batch": 1},
        {"recompute": "full"},
        {"tp": 2},
        {"pp": 2},
        {"fused": False},
    ):
        other = replace(layout, **change)
        slower = tokens_per_second(other, step_time(shape, other, sheet).total) / other.gpus
        assert slower < base, change
