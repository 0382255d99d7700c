"""A model of two layers with random weights as a GGUF file, which llama.cpp serves within a second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

HIDDEN, FFN, LAYERS, HEADS, CONTEXT = 32, 64, 2, 2, 512
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


def export_run(folder: Path, seed: int = 0) -> Path:
    """An export run that holds the file; returns its folder."""
    gguf = pytest.importorskip("gguf", reason="needs the gguf package")
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"schema": 1, "verb": "export", "state": "done"}))
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *"▁abcdefghijklmnopqrstuvwxyz"]
    kinds = [2, 3, 3, *[6] * 256, *[1] * 27]
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0] * len(pieces))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(seed)

    def add(name: str, *shape: int) -> None:
        numbers = random.normal(0, 0.3, shape) if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(name, numbers.astype(np.float32))

    add("token_embd.weight", len(pieces), HIDDEN)
    add("output_norm.weight", HIDDEN)
    add("output.weight", len(pieces), HIDDEN)
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{name}.weight", HIDDEN)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", HIDDEN, HIDDEN)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{name}.weight", FFN, HIDDEN)
        add(f"blk.{layer}.ffn_down.weight", HIDDEN, FFN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder
