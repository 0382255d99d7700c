"""Data parallelism around a rank's model chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.transformer.transformer_config import TransformerConfig


def fuse_weight_gradients(chunk: torch.nn.Module) -> None:
    """Let Transformer Engine's linear layers add weight gradients to the fp32 buffers in the product.

    Otherwise every micro-batch writes them in bf16 and reads them again: 10 bytes a weight, and a rounding.
    megatron-core's own flag also wants apex, for the output layer, which keeps the usual way here.
    """
    for module in chunk.modules():
        if hasattr(module, "fuse_wgrad_accumulation"):
            module.fuse_wgrad_accumulation = True


def wrapped(
    modules: list[torch.nn.Module],
    mcore: TransformerConfig,
    device: torch.device,
    copies: int,
    distributed_optimizer: bool,
    before_waiting: Callable[[], None],
) -> list[DistributedDataParallel]:
    """Model chunks that share their gradients, on their device; also what the schedules ask `mcore` for.

    Args:
        copies: ranks with the same weights.
        distributed_optimizer: the optimizer's state is spread over them.
        before_waiting: called when this rank's own passes are done, before it waits for those of the others.
    """
    ddp = DistributedDataParallelConfig(
        use_distributed_optimizer=distributed_optimizer,
        overlap_grad_reduce=copies > 1,
        overlap_param_gather=distributed_optimizer,
        grad_reduce_in_fp32=True,
    )
    chunks = [
        DistributedDataParallel(mcore, ddp, module.to(device), disable_bucketing=i > 0)
        for i, module in enumerate(modules)
    ]

    for chunk in chunks:
        fuse_weight_gradients(chunk)

    def finalize(*arguments: Any, **options: Any) -> None:
        before_waiting()
        finalize_model_grads(*arguments, **options)

    mcore.finalize_model_grads_func = finalize
    # Between micro-batches gradients only add up; the last one's backward reduces them as they come.
    no_sync = [chunk.no_sync for chunk in chunks]
    mcore.no_sync_func = no_sync if len(no_sync) > 1 else no_sync[0]
    return chunks
