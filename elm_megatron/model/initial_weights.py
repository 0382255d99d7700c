"""Initial weights that depend on the seed and on a tensor's name alone, never on the layout.

Every tensor is drawn whole from a generator of its own, and each rank keeps its shard.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from megatron.core.models.gpt import GPTModel

from conf.schema.model import ModelConfig
from elm_megatron.model.sharding import location, sharded_tensors

Distribution = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def drawn(name: str, shape: tuple[int, ...], seed: int, distribution: Distribution) -> torch.Tensor:
    """A whole tensor of random numbers, fp32 on the CPU: a function of the seed and the name.

    Args:
        distribution: fills an empty tensor from a generator, both given to it, and returns the tensor.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return distribution(torch.empty(shape, dtype=torch.float32, device="cpu"), generator)


@torch.no_grad()
def initialize(chunks: list[GPTModel], model: ModelConfig, seed: int) -> None:
    """Draw the initial weights in place: N(0, init_std²), residual outputs scaled by 1/√(2·layers), norms 1.

    Source of the scaling: Megatron-LM's `scaled_init_method_normal` (GPT-2's rule).
    """
    for chunk in chunks:
        for _, shards in sharded_tensors(chunk):
            for shard in shards:
                _fill(shard, model, seed)


def _fill(shard: ShardedTensor, model: ModelConfig, seed: int) -> None:
    where = location(shard)
    target = shard.data.view(where.shape)
    if len(where.whole) == 1:
        target.fill_(1.0)
        return
    std = model.init_std
    if "linear_proj" in where.name or "linear_fc2" in where.name:
        std /= math.sqrt(2.0 * model.num_layers)
    full = drawn(
        where.name, where.whole, seed, lambda out, generator: out.normal_(0.0, std, generator=generator)
    )
    target.copy_(where.of(full))
