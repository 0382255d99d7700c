"""A dry run of the real world on one machine: shapes checked and bytes counted, no memory spent.

    python -m elm_megatron.engine.preflight config.yaml

Builds the first and the last rank of the world on torch's meta device over a fake process group and prints
one JSON object. A launcher runs it as a process of its own, because launchers hold no torch.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import yaml

from conf import typed
from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig
from conf.schema.pretrain import PretrainConfig
from elm_megatron.model import device, kernels
from elm_megatron.planner import memory


@dataclass(frozen=True)
class RankBytes:
    """One rank's share.

    Attributes:
        rank: global rank.
        parameters: weights it holds.
        weight_bytes, gradient_bytes, optimizer_bytes: what it allocates for them.
        activation_bytes: at its peak, estimated from shapes.
    """

    rank: int
    parameters: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """Everything together."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.activation_bytes


def build_on_meta(
    model: ModelConfig, parallel: ParallelConfig, world_size: int, rank: int, precision: str = "fp32"
) -> list[torch.nn.Module]:
    """One rank's model chunks on the meta device, in a pretended world."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from elm_megatron.engine import distributed
    from elm_megatron.model import llama

    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    try:
        distributed.model_parallel(parallel)
        distributed.seed_everything(0)
        return llama.build(model, parallel, llama.transformer_config(model, parallel, precision), False)
    finally:
        distributed.leave()


def count(chunks: list[torch.nn.Module]) -> int:
    """Parameters held by model chunks."""
    return sum(p.numel() for chunk in chunks for p in chunk.parameters())


def total_parameters(model: ModelConfig) -> int:
    """Parameters of the whole model, built on one pretended rank."""
    return count(build_on_meta(model, ParallelConfig(), 1, 0))


def rank_bytes(config: PretrainConfig, rank: int) -> RankBytes:
    """What one rank of the real world holds."""
    train, parallel = config.train, config.parallel
    parameters = count(build_on_meta(config.model, parallel, config.world_size, rank, train.precision))
    spread = config.dp * config.parallel.cp if train.distributed_optimizer else 1
    masters = 0 if train.precision == "fp32" else 4
    return RankBytes(
        rank=rank,
        parameters=parameters,
        weight_bytes=parameters * memory.ELEMENT_BYTES[train.precision],
        gradient_bytes=parameters * 4,  # reduced and accumulated in fp32
        optimizer_bytes=parameters * (8 + masters) // spread,
        activation_bytes=memory.activation_bytes(
            config.model, parallel, train, rank * parallel.pp // config.world_size, config.cluster.device
        ),
    )


def report(config: PretrainConfig) -> dict:
    """The preflight's findings as plain containers."""
    device.pretend()
    ranks = sorted({0, config.world_size - 1})
    found = [rank_bytes(config, rank) for rank in ranks]
    train = config.train
    expected = kernels.expected(config.cluster.device, train.precision, train.z_loss)
    return {
        "parameters": total_parameters(config.model),
        "world_size": config.world_size,
        "dp": config.dp,
        "kernels": kernels.summary(expected, are_chosen=False),
        "kernel_notes": kernels.notes(config.cluster.device, expected),
        "ranks": [{**asdict(one), "total_bytes": one.total_bytes} for one in found],
    }


def main() -> None:
    """Read a config.yaml and print the report as JSON."""
    data = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    config = typed.build(PretrainConfig, data)
    config.check()
    print(json.dumps(report(config)))


if __name__ == "__main__":
    main()
