"""Writes LoRA adapters as PEFT folders, from the checkpoint of a tuning run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save

from data_prep import files
from elm_megatron.chat.template import Template
from elm_megatron.sources.adapters import MATRICES, TENSORS, Adapter, peft_name
from elm_megatron.sources.places import ADAPTER_CONFIG, ADAPTER_FACTS, TEMPLATE_FILE


def lora_facts(tune: Any) -> dict[str, Any]:
    """What decides on an adapter's shape and effect, for a checkpoint's manifest."""
    return {"r": tune.r, "alpha": tune.alpha, "targets": sorted(tune.targets)}


def write(folder: Path, adapter: Adapter, facts: dict[str, Any], template: Template) -> None:
    """Write a PEFT folder, or a new version of one in its place; at every moment one of them is whole."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed one
    temporary.mkdir(mode=0o700, parents=True)
    _write_files(temporary, adapter, facts, template)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_file() and not (temporary / path.name).exists():  # somebody's notes
            shutil.copy2(path, temporary / path.name)
    files.replace_folder(temporary, folder)


def _write_files(folder: Path, adapter: Adapter, facts: dict[str, Any], template: Template) -> None:
    tensors = {
        peft_name(layer, target, matrix): tensor.contiguous()
        for (layer, target), pair in adapter.tensors.items()
        for matrix, tensor in zip(MATRICES, pair, strict=True)
    }
    with files.replacing(folder / TENSORS) as file:
        file.write(save(tensors, metadata={"format": "pt"}))
    files.write(folder / ADAPTER_FACTS, json.dumps(facts, indent=2) + "\n")
    template.save(folder / TEMPLATE_FILE)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": adapter.r,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": sorted(adapter.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "layers_to_transform": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    files.write(folder / ADAPTER_CONFIG, json.dumps(config, indent=2) + "\n")
