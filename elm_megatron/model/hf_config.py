"""Our model's sizes as a Hugging Face config.json, and back. Torch-free.

Every field that shapes the computation is written out: a reader's defaults may differ from the model's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conf.errors import InputError
from conf.schema.model import ModelConfig
from data_prep.manifest import TokenizerInfo

TORCH_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def config_json(model: ModelConfig, ids: TokenizerInfo, dtype: str) -> dict[str, Any]:
    """The contents of config.json.

    Args:
        ids: the tokenizer's special ids.
        dtype: fp32, bf16 or fp16, the type of the exported weights.
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_query_groups,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": model.max_position_embeddings,
        "rms_norm_eps": model.norm_eps,
        # transformers 5 reads rope_parameters, earlier ones and other programs the two older keys.
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "rope_theta": model.rope_theta,
        "rope_scaling": None,
        "initializer_range": model.init_std,
        "tie_word_embeddings": model.tie_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "use_cache": True,
        "bos_token_id": ids.bos_id,
        "eos_token_id": ids.eos_id,
        "pad_token_id": ids.pad_id,
        "dtype": TORCH_DTYPES[dtype],
        "torch_dtype": TORCH_DTYPES[dtype],
    }


def read_config(folder: Path) -> dict[str, Any]:
    """A Hugging Face folder's config.json.

    Raises:
        InputError: there is none, or it is not JSON.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: {folder} is not a Hugging Face folder.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is not a JSON object.")
    return config


def model_config(folder: Path, name: str) -> ModelConfig:
    """The model a Hugging Face folder describes.

    Args:
        name: becomes `model.name`.

    Raises:
        InputError: it is not a Llama as this suite builds it; the sentence names the key.
    """
    raw = read_config(folder)
    path = folder / "config.json"
    rope = _rope(path, raw)
    _require_plain_llama(path, raw, rope)

    def number(key: str, kind: type, values: dict[str, Any] = raw, default: Any = None) -> Any:
        value = values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or kind(value) != value:
            raise InputError(f"{path}: {key}={value!r}, must be a {'whole ' * (kind is int)}number.")
        return kind(value)

    model = ModelConfig(
        name=name,
        hidden_size=number("hidden_size", int),
        ffn_hidden_size=number("intermediate_size", int),
        num_layers=number("num_hidden_layers", int),
        num_attention_heads=number("num_attention_heads", int),
        num_query_groups=number("num_key_value_heads", int, default=raw.get("num_attention_heads")),
        max_position_embeddings=number("max_position_embeddings", int),
        vocab_size=number("vocab_size", int),
        rope_theta=number("rope_theta", float, rope, 10000.0),
        norm_eps=number("rms_norm_eps", float, default=1e-6),
        tie_embeddings=raw.get("tie_word_embeddings", False) is True,
        init_std=number("initializer_range", float, default=0.02),
    )
    model.check()
    head_dim = raw.get("head_dim") or model.head_dim
    if head_dim != model.head_dim:
        raise InputError(
            f"{path}: head_dim={head_dim}, allowed is hidden_size/num_attention_heads={model.head_dim}."
        )
    return model


def _rope(path: Path, raw: dict[str, Any]) -> dict[str, Any]:
    """The rotary settings as transformers reads them: `rope_scaling`, the older key, goes before
    `rope_parameters`, and both before `rope_theta` at the top.
    """
    key = "rope_scaling" if raw.get("rope_scaling") else "rope_parameters"
    inner = raw.get(key) or {}
    if not isinstance(inner, dict):
        raise InputError(f"{path}: {key}={inner!r}, must be an object.")
    return {**raw, **inner}


def _require_plain_llama(path: Path, raw: dict[str, Any], rope: dict[str, Any]) -> None:
    found = {
        "model_type": (raw.get("model_type"), "llama"),
        "hidden_act": (raw.get("hidden_act", "silu"), "silu"),
        "attention_bias": (bool(raw.get("attention_bias", False)), False),
        "mlp_bias": (bool(raw.get("mlp_bias", False)), False),
        "rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
        "quantization_config": (raw.get("quantization_config"), None),
    }
    for key, (value, allowed) in found.items():
        if value != allowed:
            raise InputError(f"{path}: {key}={value!r}, allowed is {allowed!r}.")
