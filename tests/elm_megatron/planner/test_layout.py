"""parallel=auto against the preflight, which builds ranks: what is chosen fits on the fullest of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from conf.errors import InputError
from conf.schema.cluster import ClusterConfig, SiteConfig
from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig
from conf.schema.pretrain import PretrainConfig
from elm_megatron.engine import preflight
from elm_megatron.planner import layout
from tests.elm_megatron.configs import pretrain_config

GIB = 2**30
MODELS = {  # hidden, ffn, layers, heads, groups, vocabulary
    "big": (4096, 11008, 32, 32, 32, 128_256),
    "mid": (2048, 5632, 24, 32, 4, 128_256),
    "large": (2048, 5120, 16, 32, 32, 32_000),
}


def run_of(
    folder: Path, model: str, nodes: int, per_node: int, gib: float, tied: bool = False
) -> PretrainConfig:
    """A bf16 run of micro-batches of one sequence on GPUs of `gib` GiB."""
    hidden, ffn, layers, heads, groups, vocabulary = MODELS[model]
    sizes = ModelConfig(model, hidden, ffn, layers, heads, groups, 2048, vocabulary, tie_embeddings=tied)
    train = {"precision": "bf16", "seq_length": 2048, "global_batch_size": 64, "micro_batch_size": 1}
    config = pretrain_config(folder / "run", folder, 1, sizes, **train)
    site = SiteConfig(gpu_memory_gb=gib)
    config.cluster = ClusterConfig(
        executor="slurm", nodes=nodes, gpus_per_node=per_node, device="gpu", site=site
    )
    return config


@pytest.fixture(scope="module")
def fullest() -> Iterator[Callable[[PretrainConfig], int]]:
    """Bytes of the rank that holds most; built in a process of its own, where megatron-core may pretend."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:

        def bytes_of(config: PretrainConfig) -> int:
            found = process.submit(preflight.report, config).result(timeout=240)
            return max(rank["total_bytes"] for rank in found["ranks"])

        yield bytes_of


@pytest.mark.parametrize(
    ("model", "nodes", "per_node", "gib"),
    [
        ("big", 4, 1, 80),
        ("big", 8, 1, 40),
        ("big", 4, 4, 24),
        ("mid", 2, 1, 24),
        ("mid", 16, 1, 10),
        ("large", 2, 4, 94),
        ("large", 4, 4, 16),
        ("large", 4, 1, 10),
    ],
)
def test_what_is_chosen_fits_on_the_fullest_rank(
    model: str,
    nodes: int,
    per_node: int,
    gib: float,
    fullest: Callable[[PretrainConfig], int],
    tmp_path: Path,
) -> None:
    config = run_of(tmp_path, model, nodes, per_node, gib)
    chosen, why = layout.choose(config)
    planned, held = layout.rank_bytes(config, chosen), fullest(replace(config, parallel=chosen))
    assert 0.97 * held <= planned <= 1.03 * held
    assert held <= layout.USABLE * gib * GIB
    dp = nodes * per_node // chosen.model_ranks
    assert why == (
        f"tp={chosen.tp} pp={chosen.pp} dp={dp}: the least cut that fits, {held / GIB:.1f} of "
        f"{layout.USABLE * gib:.1f} usable GiB a GPU"
    )


@pytest.mark.parametrize(
    ("model", "nodes", "gib", "pp", "least"),
    [
        ("big", 16, 24, 8, "24.0"),
        ("big", 4, 48, 4, "45.0"),
        ("mid", 4, 12, 4, "11.8"),
        ("mid", 8, 10, 4, "8.8"),
    ],
)
def test_what_fits_on_the_average_rank_alone_is_refused(
    model: str,
    nodes: int,
    gib: float,
    pp: int,
    least: str,
    fullest: Callable[[PretrainConfig], int],
    tmp_path: Path,
) -> None:
    """One GPU a node, so that only pipeline stages can cut; each was chosen once, with this pp."""
    config = run_of(tmp_path, model, nodes, 1, gib)
    held = fullest(replace(config, parallel=ParallelConfig(pp=pp)))
    assert held > layout.USABLE * gib * GIB
    assert f"{held / GIB:.1f}" == least
    said = f"fits {layout.USABLE * gib:.1f} usable GiB a GPU on {nodes} ranks, the least {least}."
    with pytest.raises(InputError, match=re.escape(said)):
        layout.choose(config)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "parallel",
    [
        ParallelConfig(),
        ParallelConfig(pp=4),
        ParallelConfig(pp=8),
        ParallelConfig(tp=4, sp=True),
        ParallelConfig(tp=2, pp=4, sp=True),
        ParallelConfig(pp=4, vpp=2),
        ParallelConfig(pp=2, cp=2),
    ],
    ids=lambda p: f"tp{p.tp}pp{p.pp}vpp{p.vpp}cp{p.cp}",
)
def test_planned_bytes_are_those_of_the_fullest_rank(
    parallel: ParallelConfig, tied: bool, fullest: Callable[[PretrainConfig], int], tmp_path: Path
) -> None:
    config = run_of(tmp_path, "mid", 2, 4, 80, tied)
    held = fullest(replace(config, parallel=parallel))
    assert layout.rank_bytes(config, parallel) == pytest.approx(held, rel=1e-6)
