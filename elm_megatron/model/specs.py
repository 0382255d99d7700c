"""Which modules a layer is made of: Transformer Engine's where it is installed, torch's elsewhere.

Both name their parameters alike in a sharded checkpoint, so weights trained with one load into the other.
"""

from __future__ import annotations

from functools import partial

from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules

from elm_megatron.model.torch_attention import TorchCoreAttention
from elm_megatron.model.torch_layers import RMSNorm, TorchMLP, TorchSelfAttention


def torch_layer() -> tuple[ModuleSpec, type]:
    """Layer and final norm from megatron-core and torch alone; runs on any device."""
    layer = get_gpt_layer_local_spec(normalization="RMSNorm")
    layer.submodules.input_layernorm = RMSNorm
    layer.submodules.pre_mlp_layernorm = RMSNorm
    layer.submodules.self_attention.module = TorchSelfAttention
    layer.submodules.self_attention.submodules.core_attention = TorchCoreAttention
    if isinstance(layer.submodules.mlp, ModuleSpec):
        layer.submodules.mlp.module = TorchMLP
    else:  # megatron-core 0.19 gives a partial of its MLP's constructor
        mlp = layer.submodules.mlp
        layer.submodules.mlp = partial(TorchMLP.as_mlp_submodule, *mlp.args, **mlp.keywords)
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
