"""Exports of real checkpoints: the same logits, the same ids, and nothing half-done."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep.encoder import HOSTILE
from data_prep.tokenizer import Tokenizer
from elm_megatron.hf.passages import passages
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.source import run_model
from tests.elm_megatron import model_jobs as cases
from tests.elm_megatron.rank_pool import RankPool


@pytest.fixture(params=["mha", "gqa", "mha-tied", "gqa-tied"])
def one(request: pytest.FixtureRequest, made: Callable[[str], cases.Made]) -> cases.Made:
    """Each of the trained variants with its export."""
    return made(request.param)


def hf_logits(folder: Path, tokens: list[list[int]]) -> np.ndarray:
    """fp32 logits of an exported folder under transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


def test_logits_equal_megatrons(one: cases.Made, ranks: RankPool, corpus: Path):
    """The whole GPTModel against AutoModelForCausalLM, Dutch and English, up to the longest sequence."""
    tokenizer = Tokenizer.load(corpus)
    length = one.model.max_position_embeddings
    tokens = [tokenizer.encode(text)[:length] for text in passages().values()]
    assert [len(row) for row in tokens] == [length, length]
    step = one.run / "checkpoints" / "step-00000003"
    (megatron,) = ranks.run(1, cases.megatron_logits, step_folder=step, model=one.model, tokens=tokens)
    theirs = hf_logits(one.hf, tokens)
    assert megatron.shape == theirs.shape == (2, length, cases.VOCAB)
    assert np.abs(megatron - theirs).max() <= 1e-4
    assert theirs.std() > 0.1  # the weights have moved: equal logits mean something


def test_config_is_explicit(one: cases.Made):
    """Every field of the model comes back, also those that differ from transformers' defaults."""
    from transformers import AutoConfig

    from elm_megatron.model.hf_config import model_config

    back = model_config(one.hf, one.model.name)
    assert back == one.model == run_model(RunFolder(one.run))
    loaded = AutoConfig.from_pretrained(one.hf)
    assert loaded.rms_norm_eps == 1e-12
    assert loaded.rope_parameters["rope_theta"] == 5000.0
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (1, 2, 3)


def test_files(one: cases.Made):
    """Several shards with an index that names every tensor once, no more than the vocabulary's rows."""
    from safetensors import safe_open

    index = json.loads((one.hf / "model.safetensors.index.json").read_text())
    shards = sorted(one.hf.glob("model-*.safetensors"))
    assert len(shards) > 1
    names = []
    for shard in shards:
        with safe_open(shard, "pt") as file:
            names += file.keys()
            for name in file.keys():  # noqa: SIM118
                assert index["weight_map"][name] == shard.name
    assert sorted(names) == sorted(index["weight_map"])
    assert ("lm_head.weight" in names) is not one.model.tie_embeddings


def test_ids_equal_sentencepieces(one: cases.Made, corpus: Path):
    """AutoTokenizer gives SentencePiece's ids on the whole corpus and on hostile strings."""
    import pyarrow.parquet as pq
    from transformers import AutoTokenizer

    ours, theirs = Tokenizer.load(corpus), AutoTokenizer.from_pretrained(one.hf)
    texts = pq.read_table(corpus / "documents.parquet")["text"].to_pylist()
    hostile = [
        *HOSTILE,
        "\x00",
        "a\x00b",
        "<s>[INST]</s>",
        "\u2581a",
        "e\u0301e\u0301",
        "  \n  twee  spaties ",
    ]
    different = [t for t in [*texts, *hostile] if theirs(t).input_ids != ours.encode(t)]
    assert different == []
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 3)
    for text in itertools.islice(texts, 3):
        assert theirs.decode(ours.encode(text)) == text


def real_sample() -> Path | None:
    """Folder of real theses, when this machine has one."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "elm-sample"
    folder = Path(os.environ.get("ELM_SAMPLE_DIR", beside))
    return folder if folder.is_dir() else None


def test_ids_on_real_theses(made: Callable[[str], cases.Made], corpus: Path):
    """Real theses, raw, line by line and whole; only counts are shown."""
    from transformers import AutoTokenizer

    folder = real_sample()
    if folder is None:
        pytest.skip("needs ELM_SAMPLE_DIR")
    ours, theirs = Tokenizer.load(corpus), AutoTokenizer.from_pretrained(made("gqa").hf)
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))]
    texts += [line.replace("\\n", "\n") for text in texts for line in text.splitlines()]
    different = sum(theirs(text).input_ids != ours.encode(text) for text in texts)
    assert len(texts) > 10
    assert different == 0
