"""Hugging Face's names for a Llama's parameters, and how they map to Megatron's: the one module that knows.

A model is walked in *parts*, in the order of a forward pass: the embedding, each layer, the final norm, the
output head. A part maps both ways without loss, except that Hugging Face's vocabulary is the tokenizer's and
Megatron's is padded to a multiple of 128; coming back, the padding is zeros.

- `linear_qkv` holds, for each query group, its q heads, then k, then v: [groups, q + 2, head_dim, hidden].
- `linear_fc1` is the gate above the up projection: [gate; up].
- Megatron's rotary embedding pairs channels as Hugging Face's does; nothing is permuted.

Importing this module loads no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from conf.schema.model import ModelConfig

if TYPE_CHECKING:
    import torch

Part = str | int
EMBEDDING, NORM, HEAD = "embedding", "norm", "head"

# Megatron's names are those of a sharded checkpoint, the same for its torch and Transformer Engine layers.
MEGATRON_EMBEDDING = "embedding.word_embeddings.weight"
MEGATRON_NORM = "decoder.final_layernorm.weight"
MEGATRON_HEAD = "output_layer.weight"
MEGATRON_LAYER = {
    "attention_norm": "decoder.layers.self_attention.linear_qkv.layer_norm_weight",
    "qkv": "decoder.layers.self_attention.linear_qkv.weight",
    "out": "decoder.layers.self_attention.linear_proj.weight",
    "mlp_norm": "decoder.layers.mlp.linear_fc1.layer_norm_weight",
    "fc1": "decoder.layers.mlp.linear_fc1.weight",
    "fc2": "decoder.layers.mlp.linear_fc2.weight",
}
HF_EMBEDDING = "model.embed_tokens.weight"
HF_NORM = "model.norm.weight"
HF_HEAD = "lm_head.weight"
HF_LAYER = {
    "attention_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "out": "self_attn.o_proj.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "fc2": "mlp.down_proj.weight",
}

# The matrices an adapter may change, under PEFT's names, with the fused Megatron layer that each is part of.
PROJECTIONS = {name.split(".")[1]: key for key, name in HF_LAYER.items() if name.count(".") == 2}
FUSED = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "fc1", "up": "fc1"}
MEGATRON_OWNER = {
    projection: MEGATRON_LAYER[FUSED.get(key, key)].removesuffix(".weight")
    for projection, key in PROJECTIONS.items()
}


def parts(model: ModelConfig) -> Iterator[Part]:
    """The parts of a model in the order of a forward pass; a tied model has no head of its own."""
    yield EMBEDDING
    yield from range(model.num_layers)
    yield NORM
    if not model.tie_embeddings:
        yield HEAD


def megatron_shapes(model: ModelConfig, part: Part) -> dict[str, tuple[int, ...]]:
    """Megatron's names of a part with the shapes of the whole tensors."""
    hidden, ffn, channels = model.hidden_size, model.ffn_hidden_size, model.head_dim
    if part == EMBEDDING:
        return {MEGATRON_EMBEDDING: (model.padded_vocab_size, hidden)}
    if part == NORM:
        return {MEGATRON_NORM: (hidden,)}
    if part == HEAD:
        return {MEGATRON_HEAD: (model.padded_vocab_size, hidden)}
    heads = model.num_attention_heads + 2 * model.num_query_groups
    shapes = {
        "attention_norm": (hidden,),
        "qkv": (heads * channels, hidden),
        "out": (hidden, model.num_attention_heads * channels),
        "mlp_norm": (hidden,),
        "fc1": (2 * ffn, hidden),
        "fc2": (hidden, ffn),
    }
    return {f"{MEGATRON_LAYER[key]}.{part}": shape for key, shape in shapes.items()}


def hf_shapes(model: ModelConfig, part: Part) -> dict[str, tuple[int, ...]]:
    """Hugging Face's names of a part with their shapes, in the order in which they are written."""
    hidden, ffn, channels = model.hidden_size, model.ffn_hidden_size, model.head_dim
    if part == EMBEDDING:
        return {HF_EMBEDDING: (model.vocab_size, hidden)}
    if part == NORM:
        return {HF_NORM: (hidden,)}
    if part == HEAD:
        return {HF_HEAD: (model.vocab_size, hidden)}
    shapes = {
        "attention_norm": (hidden,),
        "q": (model.num_attention_heads * channels, hidden),
        "k": (model.num_query_groups * channels, hidden),
        "v": (model.num_query_groups * channels, hidden),
        "out": (hidden, model.num_attention_heads * channels),
        "mlp_norm": (hidden,),
        "gate": (ffn, hidden),
        "up": (ffn, hidden),
        "fc2": (hidden, ffn),
    }
    return {_hf_name(part, key): shape for key, shape in shapes.items()}


def count(model: ModelConfig) -> int:
    """Parameters of an exported model: the padding of the vocabulary does not count."""
    shapes = (shape for part in parts(model) for shape in hf_shapes(model, part).values())
    return sum(math.prod(shape) for shape in shapes)


def projection_shape(model: ModelConfig, projection: str) -> tuple[int, int]:
    """(out, in) of a projection of every layer; `projection` is one of `PROJECTIONS`."""
    out, width = hf_shapes(model, 0)[_hf_name(0, PROJECTIONS[projection])]
    return out, width


def hf_module(layer: Part, key: str) -> str:
    """Name of the module that holds a matrix of a layer; `key` is one of `HF_LAYER`."""
    return f"model.layers.{layer}.{HF_LAYER[key]}".removesuffix(".weight")


def _hf_name(layer: Part, key: str) -> str:
    return f"model.layers.{layer}.{HF_LAYER[key]}"


def to_hf(
    model: ModelConfig, part: Part, tensors: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Hugging Face's tensors of a part, one by one in the order of `hf_shapes`.

    Args:
        tensors: Megatron's tensors of the part, whole, any dtype.

    Returns:
        Pairs of name and tensor; most are views.
    """
    if part in (EMBEDDING, HEAD):
        hf, megatron = (HF_EMBEDDING, MEGATRON_EMBEDDING) if part == EMBEDDING else (HF_HEAD, MEGATRON_HEAD)
        yield hf, tensors[megatron][: model.vocab_size]
        return
    if part == NORM:
        yield HF_NORM, tensors[MEGATRON_NORM]
        return
    layer = {key: tensors[f"{name}.{part}"] for key, name in MEGATRON_LAYER.items()}
    layer["q"], layer["k"], layer["v"] = split_qkv(model, layer.pop("qkv"))
    layer["gate"], layer["up"] = layer.pop("fc1").chunk(2)
    for key in HF_LAYER:
        yield _hf_name(part, key), layer[key]


def to_megatron(
    model: ModelConfig, part: Part, tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Megatron's tensors of a part; the inverse of `to_hf`, padded rows of the vocabulary being zeros."""
    import torch

    if part in (EMBEDDING, HEAD):
        hf, megatron = (HF_EMBEDDING, MEGATRON_EMBEDDING) if part == EMBEDDING else (HF_HEAD, MEGATRON_HEAD)
        missing = model.padded_vocab_size - model.vocab_size
        return {megatron: torch.nn.functional.pad(tensors[hf], (0, 0, 0, missing))}
    if part == NORM:
        return {MEGATRON_NORM: tensors[HF_NORM]}
    layer = {key: tensors[_hf_name(part, key)] for key in HF_LAYER}
    layer["qkv"] = join_qkv(model, *(layer.pop(key) for key in ("q", "k", "v")))
    layer["fc1"] = torch.cat([layer.pop("gate"), layer.pop("up")])
    return {f"{MEGATRON_LAYER[key]}.{part}": tensor for key, tensor in layer.items()}


def split_qkv(model: ModelConfig, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q [heads·d, n], k and v [groups·d, n] out of Megatron's fused [(heads + 2·groups)·d, n].

    n is the hidden size for a weight, or the rank for the B matrix of a LoRA adapter.
    """
    groups, queries = model.num_query_groups, model.num_attention_heads // model.num_query_groups
    grouped = qkv.view(groups, queries + 2, model.head_dim, -1)
    return tuple(
        grouped[:, start:stop].reshape(-1, qkv.shape[-1])
        for start, stop in ((0, queries), (queries, queries + 1), (queries + 1, queries + 2))
    )  # type: ignore[return-value]


def join_qkv(model: ModelConfig, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Megatron's fused matrix; the inverse of `split_qkv`."""
    import torch

    groups = model.num_query_groups
    grouped = [x.reshape(groups, -1, model.head_dim, x.shape[-1]) for x in (q, k, v)]
    return torch.cat(grouped, dim=1).reshape(-1, q.shape[-1])
