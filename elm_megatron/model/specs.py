"""Which modules a layer is made of: Transformer Engine's where it is installed, torch's elsewhere.

Both name their parameters alike in a sharded checkpoint, so weights trained with one load into the other.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig

from elm_megatron.model.torch_attention import TorchCoreAttention


class _NormFunction(torch.autograd.Function):
    """x / rms(x) · weight, keeping only x and 1/rms for backward; torch's own keeps x / rms(x) too."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.float()
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True).add_(eps))
        ctx.save_for_backward(x, weight, inverse)
        return (wide * inverse).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        normed = x.float() * inverse
        wide = gradient.float()
        of_weight = (wide * normed).flatten(0, -2).sum(0).to(weight.dtype)
        wide = wide * weight
        wide -= normed * (wide * normed).mean(-1, keepdim=True)
        return (wide * inverse).to(x.dtype), of_weight, None


class RMSNorm(torch.nn.Module):
    """Root-mean-square norm that allows sequence parallelism.

    mcore's torch wrapper refuses sequence parallelism; its gradient only needs the weight to be marked,
    so that `finalize_model_grads` sums it over the tensor-parallel ranks.

    Args:
        config: gives `sequence_parallel` and `params_dtype`.
        hidden_size: channels of the last axis.
        eps: added to the mean square.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: object):
        super().__init__()
        self.eps = eps
        device = "cpu" if config.use_cpu_initialization else torch.cuda.current_device()
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype, device=device))
        self.weight.sequence_parallel = config.sequence_parallel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., hidden] → the same shape and dtype; the mean square is taken in fp32."""
        return _NormFunction.apply(x, self.weight, self.eps)


def torch_layer() -> tuple[ModuleSpec, type]:
    """Layer and final norm from megatron-core and torch alone; runs on any device."""
    layer = get_gpt_layer_local_spec(normalization="RMSNorm")
    layer.submodules.input_layernorm = RMSNorm
    layer.submodules.pre_mlp_layernorm = RMSNorm
    layer.submodules.self_attention.submodules.core_attention = TorchCoreAttention
    return layer, RMSNorm


def transformer_engine_layer() -> tuple[ModuleSpec, type]:
    """Layer and final norm from Transformer Engine: fused norm + linear, fused attention, fp8."""
    from megatron.core.extensions.transformer_engine import TENorm

    return get_gpt_layer_with_transformer_engine_spec(), TENorm


def block_spec(layers: int, transformer_engine: bool) -> TransformerBlockSubmodules:
    """The spec of one stage's transformer block.

    Args:
        layers: layers of this (virtual) pipeline stage.
        transformer_engine: take Transformer Engine's modules instead of torch's.
    """
    layer, norm = transformer_engine_layer() if transformer_engine else torch_layer()
    return TransformerBlockSubmodules(layer_specs=[layer] * layers, layer_norm=norm)
