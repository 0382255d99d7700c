"""A model as a Hugging Face folder: weights, config.json, tokenizer files."""

from __future__ import annotations

import json
from pathlib import Path

from conf.schema.hf import ExportConfig
from elm_megatron.hf import gate, tokenizer_writer
from elm_megatron.hf.writer import DTYPES, SafetensorsWriter
from elm_megatron.hf.written import Written
from elm_megatron.model import hf_config
from elm_megatron.sources.source import ModelSource
from elm_megatron.sources.weights import FolderWeights, hf_tensors


def write(config: ExportConfig, source: ModelSource, folder: Path) -> Written:
    """Write a model's folder, without its card.

    Raises:
        InputError: the source's weights are damaged, or its tokenizer files disagree.
    """
    dtype = config.dtype or source.dtype
    weights, tokenizer = source.weights, source.tokenizer
    folder.mkdir(mode=0o700)
    writer = SafetensorsWriter(folder, weights.model, dtype, int(config.shard_gb * 1e9))
    for name, tensor in hf_tensors(weights):
        writer.write(name, tensor)
    writer.finish()
    settings = hf_config.config_json(weights.model, tokenizer.info, dtype)
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    tokenizer_writer.write(tokenizer, folder, weights.model.max_position_embeddings)
    rounding = None if dtype == "fp32" else gate.round_to(DTYPES[dtype])
    return Written(dtype, writer.files, rounding, FolderWeights(folder), hf_config.read_config(folder))
