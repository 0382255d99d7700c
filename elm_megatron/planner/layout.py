"""Choosing a layout: the fewest cuts of the model with which it fits a GPU's memory; torch-free.

Cutting costs communication, so a model that fits is not cut. Tensor parallelism goes first and stays within a
node, where links are fast; pipeline stages come after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from conf.errors import InputError
from conf.schema.parallel import ParallelConfig
from conf.schema.pretrain import PretrainConfig
from elm_megatron.planner import memory

USABLE = 0.85  # of a GPU's memory; the rest is the allocator's, NCCL's and the CUDA context's


def rank_bytes(config: PretrainConfig, parallel: ParallelConfig) -> int:
    """Bytes of the rank that holds most, from shapes alone: the largest pipeline stage.

    A stage's weights, gradients and optimizer state as in engine/preflight.py (the state spread over dp·cp),
    and its activations. The first stage has the embedding and most micro-batches in flight, the last the
    output head and the logits.
    """
    train, device = config.train, config.cluster.device
    dp = config.world_size // parallel.model_ranks
    spread = dp * parallel.cp if train.distributed_optimizer else 1
    masters = 0 if train.precision == "fp32" else 4
    each = memory.ELEMENT_BYTES[train.precision] + 4 + (8 + masters) / spread  # bytes of one weight
    return max(
        int(each * memory.stage_parameters(config.model, parallel, stage))
        + memory.activation_bytes(config.model, parallel, train, stage, device)
        for stage in range(parallel.pp)
    )


def candidates(config: PretrainConfig) -> Iterator[ParallelConfig]:
    """Layouts the model and the world allow, the least cut first."""
    world, ranks_per_node = config.world_size, config.world_size // config.cluster.nodes
    allowed = []
    for tp in range(1, ranks_per_node + 1):
        for pp in range(1, config.model.num_layers + 1):
            layout = replace(config.parallel, tp=tp, pp=pp, sp=tp > 1)  # cp and vpp stay as asked for
            trial = replace(config, parallel=layout)
            if world % layout.model_ranks:
                continue
            try:
                trial.check()
            except InputError:
                continue
            allowed.append(layout)
    yield from sorted(allowed, key=lambda layout: (layout.model_ranks, layout.pp))


def choose(config: PretrainConfig) -> tuple[ParallelConfig, str]:
    """The layout for a run, and one sentence why.

    Raises:
        InputError: no layout fits the memory of the cluster's GPUs.
    """
    capacity = (config.cluster.site.gpu_memory_gb or 0) * 2**30 * USABLE
    if config.cluster.device == "cpu" or not capacity:
        return replace(config.parallel, tp=1, pp=1), "tp=1 pp=1: the cluster names no GPU memory to fit into"
    smallest = None
    for layout in candidates(config):
        needed = rank_bytes(config, layout)
        if needed <= capacity:
            dp = config.world_size // layout.model_ranks
            return layout, (
                f"tp={layout.tp} pp={layout.pp} dp={dp}: the least cut that fits, {needed / 2**30:.1f} of "
                f"{capacity / 2**30:.1f} usable GiB a GPU"
            )
        smallest = min(needed, smallest or needed)
    raise InputError(
        f"parallel=auto: no layout fits {capacity / 2**30:.1f} usable GiB a GPU on {config.world_size} "
        f"ranks, the least {(smallest or 0) / 2**30:.1f}. Lower train.micro_batch_size, set "
        "train.recompute=full, or ask for more GPUs."
    )
