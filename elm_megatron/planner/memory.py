"""Weights and bytes of activations a rank holds at its peak, from shapes alone; torch-free.

Of activations it counts what autograd saves for backward in the torch layer spec, tensor by tensor (checked
against saved-tensor hooks in the tests). Transformer Engine saves a little less: on GPUs this is an upper
estimate.
"""

from __future__ import annotations

from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig
from conf.schema.train import TrainConfig

ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp8": 2}


def stage_parameters(model: ModelConfig, parallel: ParallelConfig, stage: int) -> int:
    """Weights a rank of pipeline stage `stage` (0 first) holds, as megatron-core's GPTModel allocates them.

    layers/pp · (matrices/tp + 2·hidden), where tp replicates the norms; on the first stage the embedding,
    vocabulary·hidden/tp; on the last the final norm and the output head, as large as the embedding. Tied, the
    head is the embedding with pp=1 and a copy of it otherwise (`GPTModel.__init__`,
    `LanguageModule.setup_embeddings_and_output_layer`). vpp changes which layers a stage has, not how many.
    """
    table = model.hidden_size * model.padded_vocab_size
    layers = model.num_layers // parallel.pp
    matrices = layers * (model.matmul_parameters() - table) // model.num_layers
    norms = 2 * layers * model.hidden_size
    first, last = stage == 0, stage == parallel.pp - 1
    if first:
        matrices += table
    if last:
        norms += model.hidden_size
        matrices += 0 if first and model.tie_embeddings else table
    return matrices // parallel.tp + norms


def layer_bytes(model: ModelConfig, parallel: ParallelConfig, train: TrainConfig) -> int:
    """Bytes one transformer layer keeps for the backward pass of one micro-batch."""
    tokens = train.micro_batch_size * train.seq_length // parallel.cp
    e = ELEMENT_BYTES[train.precision]
    h, f = model.hidden_size, model.ffn_hidden_size // parallel.tp
    heads = model.num_attention_heads // parallel.tp
    groups = model.num_query_groups // parallel.tp
    shared = parallel.tp if parallel.sp else 1  # sequence parallelism splits what tp replicates
    q, kv = heads * model.head_dim, groups * model.head_dim
    residual = 2 * tokens // shared * (h * e + 4)  # inputs of both norms and their 1/rms
    normed = 2 * tokens // shared * h * e  # inputs of qkv and fc1
    attention = tokens * ((q + kv) * e + (q + 2 * kv) * e + heads * 4)  # rotated q, k; fused qkv; log-sum-exp
    if parallel.cp > 1 and train.recompute != "selective":
        chunk = train.seq_length // (2 * parallel.cp)
        masks = (2 * parallel.cp + 1) * chunk * chunk * e
        # Rotated q, the keys and values of whole sequences, log-sum-exp, and both chunks' output by itself.
        attention = tokens * (q * e + 2 * parallel.cp * kv * e + heads * 4 + q * e) + masks
    projection = tokens * q * e  # attention's output
    mlp = tokens * 3 * f * e  # gate and up, their product
    if train.recompute == "full":
        return tokens // shared * h * e
    if train.recompute == "selective":
        attention -= tokens * heads * 4
    return residual + normed + attention + projection + mlp


def head_bytes(model: ModelConfig, parallel: ParallelConfig, train: TrainConfig, device: str) -> int:
    """Bytes of the final norm, the vocabulary projection and the cross entropy of one micro-batch.

    On a CPU, in fp32, and with a z-loss, the projection's gradients are held instead of its logits
    (`model/cross_entropy.py`, whose one chunk of logits of at most 34 MB comes and goes); else Transformer
    Engine holds the logits.
    """
    tokens = train.micro_batch_size * train.seq_length // parallel.cp
    e = ELEMENT_BYTES[train.precision]
    shared = parallel.tp if parallel.sp else 1
    vocabulary = model.padded_vocab_size // parallel.tp
    norm = tokens // shared * (model.hidden_size * e + 4)  # its input and 1/rms
    if device == "cpu" or train.precision == "fp32" or train.z_loss:
        return norm + (tokens + vocabulary) * model.hidden_size * e + tokens * 4
    return norm + tokens // shared * model.hidden_size * e + tokens * vocabulary * e + tokens * 2 * 8


def activation_bytes(
    model: ModelConfig, parallel: ParallelConfig, train: TrainConfig, stage: int, device: str
) -> int:
    """Peak bytes of activations on pipeline stage `stage` (0 first), all micro-batches in flight counted.

    `device` is `cluster.device`, "cpu" or "gpu".

    With 1F1B, stage i holds pp - i micro-batches; the interleaved schedule holds 1 + (pp-1)/(pp·vpp) times
    the first stage's amount (Narayanan et al. 2021, section 2.2).
    """
    layers = model.num_layers // parallel.pp
    one = layers * layer_bytes(model, parallel, train)
    in_flight: float = parallel.pp - stage
    if parallel.vpp > 1:
        in_flight = (
            parallel.pp * (1 + (parallel.pp - 1) / (parallel.pp * parallel.vpp)) - stage / parallel.vpp
        )
    # Cosines and sines of half a head, which queries and keys of all layers share.
    rotary = train.seq_length // parallel.cp * model.head_dim * ELEMENT_BYTES[train.precision]
    total = int(one * in_flight) + rotary
    if stage == parallel.pp - 1:
        total += head_bytes(model, parallel, train, device)
    if train.recompute == "full":
        whole = TrainConfig(**{**vars(train), "recompute": "none"})
        total += layer_bytes(model, parallel, whole)  # the layer being recomputed
    return total
