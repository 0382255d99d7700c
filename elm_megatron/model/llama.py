"""Llama as a megatron-core GPTModel: its configuration, its construction, and its loss."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from megatron.core.transformer.transformer_config import TransformerConfig

from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig
from elm_megatron.model import cross_entropy, kernels
from elm_megatron.model.specs import block_spec

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp8": torch.bfloat16}


class Llama(GPTModel):
    """A GPTModel whose loss never holds all logits, unless Transformer Engine's cross entropy serves."""

    real_vocabulary: int | None = None  # rows of this rank's output layer that are tokens; None for all
    z_loss: float = 0.0  # learnt beside the cross entropy, which Transformer Engine's cannot

    @property
    def takes_fused_loss(self) -> bool:
        """Whether Transformer Engine's cross entropy serves; it knows no z-loss and no padded rows."""
        plain = not self.z_loss and self.real_vocabulary is None
        return self.config.cross_entropy_loss_fusion and plain

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
        if labels is None or not self.post_process or self.takes_fused_loss:
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
        losses = cross_entropy.linear_cross_entropy(
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
    """megatron-core marks tensor-parallel weights while initialising; `initial_weights` draws them."""
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
        transformer_engine: use its fused rotary positions too, and its cross entropy where that is right.
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
        cross_entropy_loss_fusion=transformer_engine and kernels.has_right_cross_entropy(),
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
        chunk.real_vocabulary = _real_rows(model)
        chunks.append(chunk)
    return chunks


def _real_rows(model: ModelConfig) -> int | None:
    """How many rows of this rank's output layer are tokens; None where no row pads the vocabulary.

    The others get no share in any loss: pretraining, tuning and validation, in every layout and precision.
    Exports do not have them.
    """
    if model.padded_vocab_size == model.vocab_size:
        return None
    share = model.padded_vocab_size // parallel_state.get_tensor_model_parallel_world_size()
    real = model.vocab_size - share * parallel_state.get_tensor_model_parallel_rank()
    return min(max(0, real), share)
