"""Names and shapes of a small model: python -m tests.elm_megatron.engine.layer_names te|torch

A process of its own, because megatron-core looks for Transformer Engine when it is imported.
"""

from __future__ import annotations

import json
import sys

import torch.distributed as dist

from conf.schema.parallel import ParallelConfig
from elm_megatron.model import device
from tests.elm_megatron.configs import small_model


def main() -> None:
    """For tp=1 and for the second rank of tp=2 with sequence parallelism."""
    device.pretend()
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from elm_megatron.engine import distributed
    from elm_megatron.model import llama, sharding

    found = {}
    for tp in (1, 2):
        dist.init_process_group("fake", store=FakeStore(), rank=tp - 1, world_size=tp)
        parallel = ParallelConfig(tp=tp, sp=tp > 1)
        distributed.model_parallel(parallel)
        distributed.seed_everything(0)
        config = llama.transformer_config(small_model(), parallel)
        (chunk,) = llama.build(small_model(), parallel, config, sys.argv[1] == "te")
        from elm_megatron.model.torch_layers import TorchMLP, TorchSelfAttention

        layer, ours = chunk.decoder.layers[0], sys.argv[1] == "torch"
        assert isinstance(layer.mlp, TorchMLP) == isinstance(layer.self_attention, TorchSelfAttention) == ours
        every = [shard for _, shards in sharding.sharded_tensors(chunk) for shard in shards]
        found[tp] = sorted(map(sharding.location, every))
        distributed.leave()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
