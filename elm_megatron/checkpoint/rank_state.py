"""What one rank's model and optimizer give to a checkpoint, and how a checkpoint is put back into them.

Only fp32 master weights and AdamW's moments are stored; bf16 weights are their rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor, is_main_replica

from conf.errors import InputError
from elm_megatron.checkpoint.shards import Reader, Shard, ShardRange
from elm_megatron.model import device as devices
from elm_megatron.model.sharding import location, sharded_tensors

MOMENTS = ("exp_avg", "exp_avg_sq")  # the sections beside "weight"
Chooser = Callable[[torch.nn.Parameter], bool]
Buffers = dict[str, torch.Tensor]


class OwnedPart(Protocol):
    """The part of one parameter that this rank updates.

    Attributes:
        start, stop: the part as a range of the flattened local parameter.
        main: fp32 master weights, flat [stop - start].
    """

    start: int
    stop: int
    main: torch.Tensor


class OptimizerState(Protocol):
    """What this module asks of an optimizer; `engine/optimizer.py` is one."""

    def owned_part(self, param: torch.nn.Parameter) -> Any:
        """The `OwnedPart` of a parameter, or None when other ranks update all of it."""

    def moments(self, part: Any) -> dict[str, torch.Tensor]:
        """Both moments of a part, flat fp32; empty before the first update."""

    def set_moments(self, part: Any, moments: dict[str, torch.Tensor], step: int) -> None:
        """Put back both moments of a part."""

    def set_step(self, step: int) -> None:
        """Put back the number of updates."""


def everything(param: torch.nn.Parameter) -> bool:
    """The default choice of parameters: all of them."""
    return True


def snapshot(
    chunks: list[torch.nn.Module],
    optimizer: OptimizerState,
    distributed_optimizer: bool,
    choose: Chooser = everything,
    buffers: Buffers | None = None,
) -> list[Shard]:
    """Copies, in host memory, of all this rank has to write.

    The copy is explicit: on a CPU `.to("cpu")` would hand out the live tensor, and a save that goes on
    while training does would be torn.

    Args:
        distributed_optimizer: the optimizer's state is cut over the data-parallel ranks, so that each writes
            its part; otherwise the first of them writes everything.
        choose: which parameters belong to the checkpoint.
        buffers: memory of an earlier snapshot, to be filled again; touching fresh pages costs more than the
            copy. Nobody may still read the shards made from it.
    """
    buffers = {} if buffers is None else buffers
    copied = []
    for chunk in chunks:
        for param, shards in sharded_tensors(chunk):
            part = optimizer.owned_part(param) if choose(param) else None
            if part is None or not _writes(shards[0], distributed_optimizer):
                continue
            sections = {"weight": part.main, **optimizer.moments(part)}
            for section, values in sections.items():
                copied += list(_copies(section, values.detach(), part, shards, buffers))
    return copied


def _writes(shard: ShardedTensor, distributed_optimizer: bool) -> bool:
    """Whether this rank is the one of the replicas that writes; the last index is the data-parallel rank."""
    replica = shard.replica_id
    return is_main_replica(replica[:-1] if distributed_optimizer and isinstance(replica, tuple) else replica)


def _copies(
    section: str, values: torch.Tensor, part: OwnedPart, shards: list[ShardedTensor], buffers: Buffers
) -> Iterator[Shard]:
    base = 0
    for shard in shards:
        size = shard.data.numel()
        low, high = max(part.start, base), min(part.stop, base + size)
        if low < high:
            stored = ShardRange(section, location(shard), low - base, high - base)
            data = buffers.get(stored.key)
            if data is None:
                data = buffers[stored.key] = devices.host_buffer(high - low, values)
            data.copy_(values[low - part.start : high - part.start])
            yield Shard(stored, data)
        base += size


@torch.no_grad()
def restore(
    chunks: list[torch.nn.Module],
    optimizer: OptimizerState | None,
    reader: Reader,
    step: int,
    moments: bool = True,
    choose: Chooser = everything,
) -> None:
    """Put a checkpoint back into this rank's model and optimizer, whatever layout wrote it.

    Args:
        optimizer: None to load weights alone.
        step: number of updates done when it was written.
        moments: put AdamW's moments back too; False starts a new run from old weights.

    Raises:
        InputError: a tensor is missing or has another size.
    """
    for chunk in chunks:
        for param, shards in sharded_tensors(chunk):
            if not choose(param):
                continue
            weight = _local(reader, shards, "weight")
            param.data.view(-1).copy_(weight)
            part = optimizer.owned_part(param) if optimizer else None
            if part is None:
                continue
            part.main.copy_(weight[part.start : part.stop])
            if moments:
                stored = {
                    name: _local(reader, shards, name)[part.start : part.stop]
                    for name in MOMENTS
                    if location(shards[0]).name in reader.names(name)
                }
                if stored:
                    optimizer.set_moments(part, stored, step)
    if optimizer and moments:
        optimizer.set_step(step)


def names(chunks: list[torch.nn.Module]) -> set[str]:
    """Global names of the tensors that this rank has a part of."""
    return {
        location(shard).name for chunk in chunks for _, shards in sharded_tensors(chunk) for shard in shards
    }


def _local(reader: Reader, shards: list[ShardedTensor], section: str) -> torch.Tensor:
    """One parameter's numbers, flat, its shards one after the other.

    Raises:
        InputError: the checkpoint holds it in another size.
    """
    parts = []
    for shard in shards:
        name, whole, offset, shape = location(shard)
        stored = reader.shape(name, section)
        if stored != whole:
            raise InputError(f"{reader.folder}: {name} is {stored} there and {whole} in this model.")
        parts.append(reader.read(name, offset, shape, section).view(-1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
