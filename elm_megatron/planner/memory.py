"""Bytes that a rank holds at its peak, by part, from shapes alone; torch-free.

Of activations it counts what autograd saves for backward in the torch layer spec, tensor by tensor (checked
against saved-tensor hooks in the tests). Transformer Engine saves a little less: on GPUs this is an upper
estimate.
"""

from __future__ import annotations

from dataclasses import fields

from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig
from conf.schema.pretrain import PretrainConfig
from conf.schema.train import TrainConfig
from conf.schema.tune import FinetuneConfig

ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp8": 2}
OWN, ENGINE = "this suite's", "Transformer Engine's"
GPU_CHUNK = 1 << 28  # logits that this suite's cross entropy has at once, as in model/cross_entropy.py


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


def cross_entropy(train: TrainConfig, device: str) -> str:
    """Whose cross entropy a run's memory is counted with.

    On GPUs it is Transformer Engine's, which takes more memory: whether the job will find one with right
    gradients is known there. It has no fp32 layers and no z-loss.
    """
    own = device == "cpu" or train.precision == "fp32" or train.z_loss > 0
    return OWN if own else ENGINE


def head_bytes(model: ModelConfig, parallel: ParallelConfig, train: TrainConfig, device: str) -> int:
    """Bytes of the final norm, the vocabulary projection and the cross entropy of one micro-batch.

    With this suite's cross entropy the projection's gradients are held instead of its logits
    (`model/cross_entropy.py`; its one chunk of logits comes and goes: at most 34 MB on a CPU and 0.75 GiB
    on a GPU). Transformer Engine's holds the logits.
    """
    tokens = train.micro_batch_size * train.seq_length // parallel.cp
    e = ELEMENT_BYTES[train.precision]
    shared = parallel.tp if parallel.sp else 1
    vocabulary = model.padded_vocab_size // parallel.tp
    norm = tokens // shared * (model.hidden_size * e + 4)  # its input and 1/rms
    if cross_entropy(train, device) == OWN:
        chunk = 0 if device == "cpu" else min(tokens * vocabulary, GPU_CHUNK) * e
        return norm + (tokens + vocabulary) * model.hidden_size * e + tokens * 4 + chunk
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


def rank_parts(config: PretrainConfig | FinetuneConfig) -> dict[str, int]:
    """Bytes of the rank that holds most, by part: of the pipeline stages the fullest.

    The first stage has the embedding and most micro-batches in flight, the last the output layer.
    """
    stages = range(config.parallel.pp)
    part = _tuned_stage if isinstance(config, FinetuneConfig) else stage_parts
    return max((part(config, stage) for stage in stages), key=lambda parts: sum(parts.values()))


def stage_parts(config: PretrainConfig, stage: int) -> dict[str, int]:
    """Parts of one stage of a model whose weights are all trained, as engine/preflight.py builds them."""
    train, parallel, device = config.train, config.parallel, config.cluster.device
    weights = stage_parameters(config.model, parallel, stage)
    copies = config.dp * parallel.cp if train.distributed_optimizer else 1
    masters = 0 if train.precision == "fp32" else 4
    last = stage == parallel.pp - 1
    head = head_bytes(config.model, parallel, train, device) if last else 0
    return {
        "weights": weights * ELEMENT_BYTES[train.precision],
        "gradients": weights * 4,
        "optimizer": int(weights * (8 + masters) / copies),
        "activations": activation_bytes(config.model, parallel, train, stage, device) - head,
        "output layer": head,
    }


def _tuned_stage(config: FinetuneConfig, stage: int) -> dict[str, int]:
    """Parts of one stage of a frozen model with an adapter.

    The adapter has fp32 gradients and AdamW's two moments on every rank. Activations are those of
    pretraining, an upper estimate: frozen layers keep less. A pair (stage=dpo) is two rows.
    """
    tune, parallel = config.tune, config.parallel
    rows = tune.least_micro_batch * (2 if config.stage == "dpo" else 1)
    as_trained = {key.name: getattr(tune, key.name) for key in fields(TrainConfig)}
    train = TrainConfig(**{**as_trained, "micro_batch_size": rows})
    adapter = tune.trainable_parameters(config.model) // (parallel.pp * parallel.tp)
    last = stage == parallel.pp - 1
    head = head_bytes(config.model, parallel, train, "cpu") if last else 0
    return {
        "weights": stage_parameters(config.model, parallel, stage) * ELEMENT_BYTES[tune.precision],
        "adapter": adapter * (4 + 4 + 8),
        "activations": activation_bytes(config.model, parallel, train, stage, "cpu") - head,
        "output layer": head,
    }
