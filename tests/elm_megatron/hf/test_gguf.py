"""GGUF files under llama.cpp say what the Hugging Face folder says."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import InputError
from data_prep.tokenizer import Tokenizer
from tests.elm_megatron.hf import cases
from tests.elm_megatron.rank_pool import RankPool

pytest.importorskip("gguf", reason="needs the hf extra")

PROMPTS = (
    "De haven van Rotterdam",
    "The nurse said that",
    "In dit onderzoek is  gevraagd: waarom?\nTen eerste",
    "Één façade, naïef 2024 🌍",
    "Prices on the market",
)
LLAMA = """
import json, sys
import xllamacpp as llama
params = llama.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel, params.warmup = 512, 1, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
server = llama.Server(params)
settings = dict(n_predict=64, temperature=0, top_k=1, samplers=["top_k"], repeat_penalty=1.0)
settings["cache_prompt"] = False
found = [server.handle_completions({"prompt": p, **settings}) for p in json.load(sys.stdin)]
print("\\nRESULT " + json.dumps([[f["choices"][0]["text"], f["usage"]["prompt_tokens"]] for f in found]))
"""


def gguf_export(source: Path, folder: Path, ranks: RankPool, dtype: str) -> Path:
    """A GGUF export of a run."""
    ranks.run(1, cases.export, config=cases.export_config(folder, source, format="gguf", dtype=dtype))
    return folder / "model.gguf"


def test_llama_cpp_says_the_same(
    made: Callable[[str], cases.Made], ranks: RankPool, corpus: Path, tmp_path: Path
):
    """64 greedy tokens on five prompts, f32, grouped queries."""
    pytest.importorskip("xllamacpp", reason="needs the xllamacpp package")
    import torch
    from transformers import AutoModelForCausalLM

    one = made("gqa")
    file = gguf_export(one.run, tmp_path / "gguf", ranks, "f32")
    out = subprocess.run(
        [sys.executable, "-c", LLAMA, str(file)],
        input=json.dumps(PROMPTS), capture_output=True, text=True, timeout=200, check=True,
    ).stdout  # fmt: skip
    theirs = json.loads(out.rpartition("RESULT ")[2])
    tokenizer = Tokenizer.load(corpus)
    model = AutoModelForCausalLM.from_pretrained(one.hf, dtype=torch.float32)
    for prompt, (text, prompt_tokens) in zip(PROMPTS, theirs, strict=True):
        ids = tokenizer.encode(prompt)
        assert prompt_tokens == len(ids), prompt
        inputs = torch.tensor([ids])
        row = model.generate(inputs, max_new_tokens=64, max_length=None, do_sample=False)[0].tolist()
        continuation = tokenizer.decode(row)[len(tokenizer.decode(ids)) :]
        assert text == continuation, prompt


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_smaller_types(dtype: str, made: Callable[[str], cases.Made], ranks: RankPool, tmp_path: Path):
    """The gate passes with the rounding of the type, and its cost is recorded."""
    one = made("gqa")
    file = gguf_export(one.run, tmp_path / dtype, ranks, dtype)
    figures = json.loads((file.parent / "run.json").read_text())["export"]
    assert figures["gate"]["rounded"] <= 1e-4 < figures["gate"]["trained"] < 1.0
    assert file.stat().st_size == figures["bytes"]


def test_rows_come_back():
    """Reordering q and k for llama.cpp, and back; neighbours were half a head apart."""
    from elm_megatron.hf.gguf_file import deinterleave, interleave

    rows = np.arange(2 * 8)[:, None] * np.ones(3)
    there = interleave(rows, 2)
    assert there[:8, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert (deinterleave(there, 2) == rows).all()


@pytest.mark.parametrize(("dtype", "named"), [("q8_0", "hidden_size=48 is not"), ("f32", None)])
def test_q8_0_needs_whole_blocks(dtype: str, named: str | None, corpus: Path):
    """Rows that are not a multiple of 32 numbers are refused, for q8_0 alone."""
    from data_prep.manifest import Manifest
    from elm_megatron.config import ModelConfig
    from elm_megatron.hf import gguf_file, tokenizer_files

    tokenizer = tokenizer_files.of_dataset(Manifest.load(corpus))
    model = ModelConfig("x", 48, 96, 1, 2, 2, 64, cases.VOCAB)
    with pytest.raises(InputError, match=named) if named else contextlib.nullcontext():
        gguf_file._check(model, dtype, tokenizer)
