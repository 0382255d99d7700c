"""Adapters made by PEFT: what is merged is what PEFT computes, and what is not plain LoRA is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from conf.errors import InputError
from elm_megatron.model import hf_config
from elm_megatron.sources import adapters
from elm_megatron.sources.places import ADAPTER_CONFIG
from elm_megatron.sources.weights import FolderWeights, hf_tensors

EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with grouped queries, saved by transformers."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, tie_word_embeddings=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("base")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def load(folder: Path) -> LlamaForCausalLM:
    """The base under transformers."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def trained(base: Path, folder: Path, **settings: Any) -> torch.Tensor:
    """Save an adapter with numbers in both matrices; returns the logits of base and adapter under PEFT."""
    values = {"r": 4, "lora_alpha": 12, "target_modules": EVERY, "task_type": "CAUSAL_LM", **settings}
    model = peft.get_peft_model(load(base), peft.LoraConfig(**values))
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.2)
    model.save_pretrained(folder)
    return logits(model)


def logits(model: torch.nn.Module) -> torch.Tensor:
    """On some ids."""
    with torch.no_grad():
        return model.eval()(torch.arange(40)[None] % 200).logits


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": "all-linear"},
        {"lora_dropout": 0.1},
        {"exclude_modules": ["k_proj"]},
    ],
)
def test_merged_is_what_peft_computes(settings: dict[str, Any], base: Path, tmp_path: Path) -> None:
    expected = trained(base, tmp_path, **settings)
    model = hf_config.model_config(base, "x")
    merged = adapters.MergedWeights(FolderWeights(base), adapters.read(tmp_path, model))
    ours = load(base)
    assert (logits(ours) - expected).abs().max() > 0.1
    ours.load_state_dict(dict(hf_tensors(merged)))
    assert (logits(ours) - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora'"),
        ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens="),
        ({"use_dora": True}, "use_dora=True"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern="),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern="),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save="),
        ({"layers_to_transform": [0]}, "layers_to_transform="),
        ({"layer_replication": [(0, 2), (0, 2)]}, "layer_replication="),
        ({"trainable_token_indices": [3]}, "trainable_token_indices="),
    ],
)
def test_what_is_not_plain_lora_is_refused(
    settings: dict[str, Any], named: str, base: Path, tmp_path: Path
) -> None:
    trained(base, tmp_path, **settings)
    with pytest.raises(InputError, match=named):
        adapters.read(tmp_path, hf_config.model_config(base, "x"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("peft_type", "IA3", "allowed is 'LORA'"),
        ("use_rslora", "yes", "use_rslora='yes' is not plain LoRA"),
        ("init_lora_weights", "a_later_method", "is not plain LoRA"),
        ("corda_config", {"x": 1}, "corda_config=.* meaning is not known"),
        ("a_later_setting", 3, "a_later_setting=3 is a setting whose meaning is not known"),
        ("r", 4.5, "whole number"),
        ("r", True, "r=True, must be a number above 0"),
        ("lora_alpha", None, "lora_alpha=None, must be a number above 0"),
        ("task_type", "SEQ_CLS", "task_type='SEQ_CLS'"),
    ],
)
def test_only_known_settings(key: str, value: object, message: str, base: Path, tmp_path: Path) -> None:
    """A list of what is known to be plain, not of dangers."""
    trained(base, tmp_path)
    raw = json.loads((tmp_path / ADAPTER_CONFIG).read_text())
    model = hf_config.model_config(base, "x")
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps({**raw, "a_later_setting": None}))
    adapters.read(tmp_path, model)
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps({**raw, key: value}))
    with pytest.raises(InputError, match=message):
        adapters.read(tmp_path, model)
