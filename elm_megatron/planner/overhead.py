"""What memory has beside a rank's tensors: CUDA's context, NCCL's buffers, workspaces. Torch-free.

On a CPU it is the process itself. On a GPU these are estimates of what nvidia-smi shows and torch's allocator
does not, until tests/bench/gpu.py has measured them. Together they are 1 to 3 GiB.
"""

from __future__ import annotations

from conf.schema.pretrain import PretrainConfig
from conf.schema.tune import FinetuneConfig
from elm_megatron.planner.inputs import loop_of

MIB = 2**20
PROCESS = 460 * MIB  # of Python with torch and megatron-core, without a model, as measured on Linux
CONTEXT = 600 * MIB  # the driver's context, and the kernels of torch, cuBLAS and Transformer Engine
COMMUNICATOR = 256 * MIB  # channels of 4 MiB buffers to each peer (NCCL_BUFFSIZE), of one group of ranks
# Transformer Engine keeps 32 MiB for cuBLAS on Hopper, and so does torch.
CUBLAS = 2 * 32 * MIB


def beside(config: PretrainConfig | FinetuneConfig) -> dict[str, int]:
    """Bytes by part that a GPU, or a rank's process on a CPU, holds beside the rank's tensors."""
    if config.cluster.device == "cpu":
        return {"process": PROCESS}
    parallel, loop = config.parallel, loop_of(config)
    groups = (config.world_size, parallel.tp, parallel.pp, parallel.cp, config.dp)
    tokens = loop.least_micro_batch * loop.seq_length // parallel.cp
    # Attention's backward pass adds up the gradient of the queries in fp32.
    attention = tokens * config.model.hidden_size // parallel.tp * 4
    return {
        "CUDA context": CONTEXT,
        "NCCL": COMMUNICATOR * sum(size > 1 for size in groups),
        "workspaces": CUBLAS + attention,
    }
