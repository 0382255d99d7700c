"""Llama as a megatron-core GPTModel: configuration, construction, and initial weights.

The initial weights depend on the seed and a tensor's global name alone, never on the layout: each tensor is
drawn whole from its own generator and every rank keeps its shard.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from megatron.core.transformer.transformer_config import TransformerConfig

from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig
from elm_megatron.model.cross_entropy import linear_cross_entropy
from elm_megatron.model.specs import block_spec

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp8": torch.bfloat16}


class Llama(GPTModel):
    """A GPTModel whose loss never holds all logits, unless Transformer Engine's cross entropy serves."""

    real_vocabulary: int | None = None  # rows of this rank's output layer that are tokens; None for all
    z_loss: float = 0.0  # learnt beside the cross entropy, which Transformer Engine's cannot

    def _postprocess(
        self,
        hidden_states: torch.Tensor,
        *args: Any,
        labels: torch.Tensor | None = None,
        loss_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Losses in nats per token, fp32 [b, s], when there are labels; else megatron-core's own answer.

        Args:
            hidden_states: [s, b, h], or this rank's part of s under sequence parallel.
            labels: int64 [b, s].
            loss_mask: fp32 [b, s], how the trained loss weighs the tokens; None for all alike.
        """
        # Transformer Engine's knows neither a z-loss nor rows that are no tokens.
        plain = not self.z_loss and self.real_vocabulary is None
        fused = self.config.cross_entropy_loss_fusion and plain
        if labels is None or not self.post_process or fused:
            kwargs |= {"labels": labels, "loss_mask": loss_mask}
            return super()._postprocess(hidden_states, *args, **kwargs)
        if self.config.sequence_parallel:
            hidden_states = gather_from_sequence_parallel_region(hidden_states)
        else:
            hidden_states = copy_to_tensor_model_parallel_region(hidden_states)
        _arrived(self.output_layer)
        tied = self.share_embeddings_and_output_weights
        weight = self.shared_embedding_or_output_weight() if tied else self.output_layer.weight
        mask = torch.ones_like(labels) if loss_mask is None else loss_mask
        group = parallel_state.get_tensor_model_parallel_group()
        losses = linear_cross_entropy(
            hidden_states.flatten(0, 1),
            weight,
            labels.t().flatten(),
            mask.t().flatten().float(),
            group if dist.get_world_size(group) > 1 else None,
            self.real_vocabulary,
            self.z_loss,
        )
        return losses.view(labels.t().shape).t()


def _arrived(layer: torch.nn.Module) -> None:
    """Wait for a layer's weights, whose gathering may overlap with the layers before it, as calling it would.

    megatron-core waits in a hook of the call, and here the weight is used without one.
    """
    for hook in layer._forward_pre_hooks.values():
        hook(layer, ())


def _leave(weight: torch.Tensor) -> torch.Tensor:
    """megatron-core marks tensor-parallel weights while initialising; the numbers come from `initialize`."""
    return weight


def transformer_config(
    model: ModelConfig,
    parallel: ParallelConfig,
    precision: str = "fp32",
    recompute: str = "none",
    transformer_engine: bool = False,
) -> TransformerConfig:
    """megatron-core's configuration of our model.

    Args:
        precision: fp32, bf16, or fp8 (bf16 weights, fp8 matrix products by Transformer Engine).
        recompute: none, selective (attention only) or full (every layer).
        transformer_engine: use its fused rotary positions and cross entropy too.
    """
    full = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    selective = {"recompute_granularity": "selective"}
    return TransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        ffn_hidden_size=model.ffn_hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.num_query_groups,
        normalization="RMSNorm",
        layernorm_epsilon=model.norm_eps,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        bias_activation_fusion=True,  # saves gate and up alone for backward, not their product's parts
        apply_rope_fusion=transformer_engine,
        cross_entropy_loss_fusion=transformer_engine,
        cross_entropy_fusion_impl="te",
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=parallel.tp,
        pipeline_model_parallel_size=parallel.pp,
        virtual_pipeline_model_parallel_size=parallel.vpp if parallel.vpp > 1 else None,
        context_parallel_size=parallel.cp,
        sequence_parallel=parallel.sp,
        params_dtype=DTYPES[precision],
        pipeline_dtype=DTYPES[precision],
        bf16=precision != "fp32",
        fp8="hybrid" if precision == "fp8" else None,
        # Scales of the tensors at hand: the delayed kind keeps a history, which a resumed run would lack.
        fp8_recipe="tensorwise" if precision == "fp8" else "delayed",
        init_method=_leave,
        output_layer_init_method=_leave,
        embedding_init_method=_leave,
        # Two interleaved stages exchange several messages with one peer; batched, they would be mixed up.
        overlap_p2p_comm=parallel.vpp > 1,
        batch_p2p_comm=parallel.vpp == 1,
        batch_p2p_sync=False,  # a host that waits after every exchange, which torch has long needed no more
        # An overlapped send over gloo still reads the output when it would be freed.
        deallocate_pipeline_outputs=parallel.pp > 1 and parallel.vpp == 1,
        **{"none": {}, "selective": selective, "full": full}[recompute],
    )


def build(
    model: ModelConfig, parallel: ParallelConfig, config: TransformerConfig, transformer_engine: bool
) -> list[GPTModel]:
    """This rank's model chunks, one per virtual pipeline stage, with uninitialised weights.

    Needs an initialised `parallel_state`. On torch's meta device it costs no memory.
    """
    chunks = []
    for stage in range(parallel.vpp):
        vp_stage = stage if parallel.vpp > 1 else None
        where = {"ignore_virtual": False, "vp_stage": vp_stage}
        chunk = Llama(
            config=config,
            transformer_layer_spec=block_spec(
                model.num_layers // (parallel.pp * parallel.vpp), transformer_engine
            ),
            vocab_size=model.padded_vocab_size,
            max_sequence_length=model.max_position_embeddings,
            pre_process=parallel_state.is_pipeline_first_stage(**where),
            post_process=parallel_state.is_pipeline_last_stage(**where),
            parallel_output=True,
            share_embeddings_and_output_weights=model.tie_embeddings,
            position_embedding_type="rope",
            rotary_base=model.rope_theta,
            vp_stage=vp_stage,
        )
        chunks.append(chunk)
    return chunks


def sharded_tensors(chunk: torch.nn.Module) -> Iterator[tuple[torch.nn.Parameter, list[ShardedTensor]]]:
    """Each parameter of a model chunk with the boxes of global tensors it holds.

    Most parameters are one box; fc1 is two, gate then up, whose data are contiguous views of the parameter.
    """
    module = chunk.module if hasattr(chunk, "module") else chunk
    for entry in module.sharded_state_dict().values():
        if isinstance(entry, ShardedTensorFactory):
            yield entry.data, list(entry.build())
        elif isinstance(entry, ShardedTensor) and isinstance(entry.data, torch.nn.Parameter):
            yield entry.data, [entry]


def box(tensor: ShardedTensor) -> tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A shard's place: (name with its layer number, shape of the whole, offset, shape of the shard).

    megatron-core stacks the layers of a homogeneous model in leading axes; here a layer's number is
    part of the name, so that one name is one matrix.
    """
    n = tensor.prepend_axis_num
    name = ".".join([tensor.key, *map(str, tensor.global_offset[:n])]) if n else tensor.key
    return name, tuple(tensor.global_shape[n:]), tuple(tensor.global_offset[n:]), tuple(tensor.local_shape)


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
    name, whole, offset, shape = box(shard)
    target = shard.data.view(shape)
    if len(whole) == 1:
        target.fill_(1.0)
        return
    std = model.init_std
    if "linear_proj" in name or "linear_fc2" in name:
        std /= math.sqrt(2.0 * model.num_layers)
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    full = torch.empty(whole, dtype=torch.float32, device="cpu").normal_(0.0, std, generator=generator)
    target.copy_(full[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))])
