"""Which part of a whole tensor each of a rank's parameters is, whatever the layout.

megatron-core describes it in its sharded state dict. A checkpoint, an export and the initial weights all read
it here, so that a name means the same matrix for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory


class ShardLocation(NamedTuple):
    """Where a shard is in its whole tensor.

    Attributes:
        name: of the whole tensor, with the number of its layer.
        whole: shape of the whole tensor.
        offset: first element of the shard, by axis.
        shape: shape of the shard.
    """

    name: str
    whole: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        """The shard as a view of the whole tensor."""
        return whole[tuple(slice(o, o + n) for o, n in zip(self.offset, self.shape, strict=True))]


def location(shard: ShardedTensor) -> ShardLocation:
    """Where a shard is.

    megatron-core stacks the layers of a homogeneous model in leading axes. Here the number of a layer is part
    of the name, so that one name is one matrix.
    """
    n = shard.prepend_axis_num
    name = ".".join([shard.key, *map(str, shard.global_offset[:n])]) if n else shard.key
    return ShardLocation(
        name, tuple(shard.global_shape[n:]), tuple(shard.global_offset[n:]), tuple(shard.local_shape)
    )


def sharded_tensors(chunk: torch.nn.Module) -> Iterator[tuple[torch.nn.Parameter, list[ShardedTensor]]]:
    """Each parameter of a model chunk with the shards of whole tensors it consists of.

    Most parameters are one shard. fc1 is two, gate then up, whose data are contiguous views of the parameter.
    """
    module = chunk.module if hasattr(chunk, "module") else chunk
    for entry in module.sharded_state_dict().values():
        if isinstance(entry, ShardedTensorFactory):
            yield entry.data, list(entry.build())
        elif isinstance(entry, ShardedTensor) and isinstance(entry.data, torch.nn.Parameter):
            yield entry.data, [entry]
