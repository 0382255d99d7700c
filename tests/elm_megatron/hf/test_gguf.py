"""GGUF files under llama.cpp say what the Hugging Face folder says."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conf.errors import InputError
from data_prep.tokenizer import Tokenizer
from tests.elm_megatron import model_jobs as cases
from tests.elm_megatron.rank_pool import RankPool

gguf = pytest.importorskip("gguf", reason="needs the hf extra")

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
    from conf.schema.model import ModelConfig
    from data_prep.manifest import Manifest
    from elm_megatron.hf import gguf_file
    from elm_megatron.sources import tokenizer_files

    tokenizer = tokenizer_files.of_dataset(Manifest.load(corpus))
    model = ModelConfig("x", 48, 96, 1, 2, 2, 64, cases.VOCAB)
    with pytest.raises(InputError, match=named) if named else contextlib.nullcontext():
        gguf_file._check(model, dtype, tokenizer)


def foreign(folder: Path, corpus: Path, rows: int, adds_bos: bool | None) -> Path:
    """A Hugging Face folder whose embedding has `rows` rows for the 501 pieces of its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=rows, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copy(corpus / "tokenizer.model", folder)
    if adds_bos is not None:
        settings = {"add_bos_token": adds_bos, "bos_token": "<s>", "tokenizer_class": "LlamaTokenizer"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("adds_bos", [True, False, None])
def test_padded_vocabularies_load(adds_bos: bool | None, ranks: RankPool, corpus: Path, tmp_path: Path):
    """Rows without a piece become unused tokens, and BOS is put before a text where the source says so."""
    file = gguf_export(foreign(tmp_path / "hf", corpus, 512, adds_bos), tmp_path / "gguf", ranks, "f32")
    fields = gguf.GGUFReader(file).fields
    tokens, scores, kinds = (
        fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "scores", "token_type")
    )
    assert len(tokens) == len(set(tokens)) == len(scores) == len(kinds) == 512
    assert set(kinds[cases.VOCAB :]) == {gguf.TokenType.UNUSED}
    assert gguf.TokenType.UNUSED not in kinds[: cases.VOCAB]
    assert fields["tokenizer.ggml.add_bos_token"].contents() is bool(adds_bos)
    pytest.importorskip("xllamacpp", reason="needs the xllamacpp package")
    prompt = PROMPTS[0]
    out = subprocess.run(
        [sys.executable, "-c", LLAMA, str(file)],
        input=json.dumps([prompt]), capture_output=True, text=True, timeout=200, check=True,
    ).stdout  # fmt: skip
    ((_, prompt_tokens),) = json.loads(out.rpartition("RESULT ")[2])
    assert prompt_tokens == len(Tokenizer.load(corpus).encode(prompt)) + bool(adds_bos)


def test_more_pieces_than_rows_are_refused(corpus: Path, tmp_path: Path):
    """Ids the model has no row for: one sentence, whatever is made of the folder."""
    from elm_megatron.hf.export import open_source

    folder = foreign(tmp_path / "hf", corpus, 500, None)
    config = cases.export_config(tmp_path / "gguf", folder, format="gguf")
    with pytest.raises(InputError, match=r"tokenizer\.model has 501 pieces, config\.json says 500\.$"):
        open_source(config)
