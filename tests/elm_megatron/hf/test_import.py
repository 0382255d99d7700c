"""Hugging Face → Megatron under tp=2, pp=2 → Hugging Face: every bit comes back."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from conf.errors import InputError
from conf.schema.model import ModelConfig
from elm_megatron.hf.job import Import
from elm_megatron.model.hf_config import model_config
from elm_megatron.sources import tokenizer_files
from elm_megatron.sources.weights import FolderWeights
from tests.elm_megatron import model_jobs as cases
from tests.elm_megatron.executioner import Executioner
from tests.elm_megatron.rank_pool import RankPool


def hf_model(folder: Path, corpus: Path, groups: int, tied: bool, dtype: str = "float32") -> Path:
    """A Hugging Face folder with random weights, saved by transformers itself, and the corpus' tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from data_prep.manifest import Manifest
    from elm_megatron.hf import tokenizer_writer

    torch.manual_seed(groups)
    config = LlamaConfig(
        vocab_size=cases.VOCAB, hidden_size=64, intermediate_size=160, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=groups, max_position_embeddings=256, rms_norm_eps=1e-6,
        rope_theta=20000.0, tie_word_embeddings=tied, pad_token_id=3, initializer_range=0.2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    tokenizer_writer.write(tokenizer_files.of_dataset(Manifest.load(corpus)), folder, 256)
    return folder


def all_tensors(folder: Path) -> dict:
    """Every tensor of a folder's safetensors."""
    from safetensors.torch import load_file

    return {name: t for path in folder.glob("*.safetensors") for name, t in load_file(path).items()}


@pytest.mark.parametrize(
    ("groups", "tied", "dtype"),
    [(8, False, "float32"), (2, False, "float32"), (8, True, "float32"), (2, True, "bfloat16")],
)
def test_round_trip(groups: int, tied: bool, dtype: str, ranks: RankPool, corpus: Path, tmp_path: Path):
    """MHA and GQA, tied and untied, a vocabulary of 501 under tp=2."""
    import torch

    source = hf_model(tmp_path / "hf", corpus, groups, tied, dtype)
    ranks.run(1, cases.import_hf, config=cases.import_config(tmp_path / "imported", source))
    layout = {"tp": 2, "pp": 2}
    config = cases.run_to_train(tmp_path / "tp2pp2", corpus, 4, tied, groups, **layout)
    config.model = model_config(source, "test")
    ranks.run(4, cases.save_again, config=config, source=tmp_path / "imported")
    (tmp_path / "tp2pp2" / "config.yaml").write_text(cases.as_yaml(config))
    export = cases.export_config(
        tmp_path / "export", tmp_path / "tp2pp2", dtype={"float32": "fp32", "bfloat16": "bf16"}[dtype]
    )
    ranks.run(1, cases.export, config=export)
    before, after = all_tensors(source), all_tensors(tmp_path / "export" / "model")
    before.pop("lm_head.weight", None) if tied else None
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert torch.equal(tensor, after[name]), name


def test_imported_run_exports(ranks: RankPool, corpus: Path, tmp_path: Path):
    """An imported run carries its tokenizer and dtype, and exports without a dataset."""
    import torch

    source = hf_model(tmp_path / "hf", corpus, 2, False, "bfloat16")
    ranks.run(1, cases.import_hf, config=cases.import_config(tmp_path / "imported", source))
    ranks.run(1, cases.export, config=cases.export_config(tmp_path / "export", tmp_path / "imported"))
    model = tmp_path / "export" / "model"
    after = all_tensors(model)
    assert all(torch.equal(t, after[name]) for name, t in all_tensors(source).items())
    assert (model / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert model_config(model, "x") == model_config(source, "x")


PLAIN = {
    "model_type": "llama", "vocab_size": 501, "hidden_size": 64, "intermediate_size": 160,
    "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 8,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
}  # fmt: skip
DEFAULT = {"rope_type": "default"}


@pytest.mark.parametrize(
    "spelling",
    [
        {},
        {"rope_theta": 5e5},
        {"rope_theta": 5e5, "rope_scaling": None, "rope_parameters": None},
        {"rope_parameters": DEFAULT},
        {"rope_parameters": DEFAULT, "rope_theta": 5e5},
        {"rope_parameters": {**DEFAULT, "rope_theta": 2e4}, "rope_theta": 5e5},
        {"rope_scaling": {}, "rope_theta": 5e5},
        {"rope_scaling": {"type": "default"}, "rope_theta": 5e5},
        {"rope_scaling": {**DEFAULT, "rope_theta": 3e4}, "rope_parameters": {**DEFAULT, "rope_theta": 2e4}},
    ],
)
def test_rotary_base_is_transformers(spelling: dict[str, Any], tmp_path: Path):
    """However a config.json spells it."""
    from transformers import LlamaConfig

    (tmp_path / "config.json").write_text(json.dumps({**PLAIN, **spelling}))
    theirs = LlamaConfig.from_pretrained(tmp_path).rope_parameters
    assert theirs["rope_type"] == "default"
    assert model_config(tmp_path, "x").rope_theta == theirs["rope_theta"]


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("model_type", "gpt2", "model_type='gpt2'"),
        ("rope_parameters", {"rope_type": "llama3", "rope_theta": 1.0}, "rope_type='llama3'"),
        ("rope_parameters", {"type": "linear", "factor": 2.0}, "rope_type='linear'"),
        ("rope_scaling", {"type": "linear", "factor": 2.0}, "rope_type='linear'"),
        ("rope_scaling", "linear", "rope_scaling='linear'"),
        ("attention_bias", True, "attention_bias=True"),
        ("head_dim", 32, "head_dim=32"),
        ("num_key_value_heads", 3, "num_query_groups=3"),
        ("rms_norm_eps", "small", "rms_norm_eps"),
    ],
)
def test_other_models_are_refused(key: str, value: object, named: str, tmp_path: Path):
    """One sentence names what is not a Llama as this suite builds it."""
    (tmp_path / "config.json").write_text(json.dumps({**PLAIN, key: value}))
    with pytest.raises(InputError, match=r"\.$") as refusal:
        model_config(tmp_path, "x")
    assert named in str(refusal.value)


def test_pickles_are_not_opened(corpus: Path, tmp_path: Path):
    """A folder that holds a pickle instead of safetensors is refused, and the pickle does not run."""
    source = hf_model(tmp_path / "hf", corpus, 8, False)
    (source / "model.safetensors").unlink()
    marker = tmp_path / "ran"
    (source / "pytorch_model.bin").write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())
    with pytest.raises(InputError, match="is a pickle"):
        FolderWeights(source)
    shutil.copy(source / "pytorch_model.bin", source / "model.safetensors")
    with pytest.raises(InputError, match="not a readable safetensors"):
        FolderWeights(source)
    assert not marker.exists()


def test_incomplete_folders_are_refused(corpus: Path, tmp_path: Path):
    """A missing tensor, and a tensor of another shape than config.json says."""
    from safetensors.torch import save_file

    source = hf_model(tmp_path / "hf", corpus, 8, False)
    tensors = all_tensors(source)
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({k: v for k, v in tensors.items() if k != name}, source / "model.safetensors")
    with pytest.raises(InputError, match=f"lacks {name}"):
        FolderWeights(source)
    save_file({**tensors, name: tensors[name][:-1].clone()}, source / "model.safetensors")
    with pytest.raises(InputError, match=name):
        FolderWeights(source).hf_part(1)


def test_killed_in_its_gate(corpus: Path, executioner: Executioner, ranks: RankPool, tmp_path: Path):
    """kill -9 leaves no checkpoint that was not checked; the next import of the folder succeeds."""
    from elm_megatron.run.folder import RunFolder
    from elm_megatron.run.steps import committed

    source = hf_model(tmp_path / "hf", corpus, 2, False)
    config = cases.import_config(tmp_path / "imported", source)
    run = RunFolder(config.run.dir)
    for point in ("gate", "rename-0"):
        assert executioner.do(Import(config), point) == 9
        assert committed(run) == []
    (run.path / "tokenizer" / "chat_template.jinja").write_text("of another model")
    ranks.run(1, cases.import_hf, config=config)
    assert {path.name for path in run.checkpoints.iterdir()} == {"step-00000000", "latest"}
    assert not (run.path / "tokenizer" / "chat_template.jinja").exists()


def test_same_import_is_found(corpus: Path, ranks: RankPool, tmp_path: Path):
    """A card written anew changes no model; other weights, or another run's folder, are told as they are."""
    from elm_megatron.run.folder import RunFolder

    source = hf_model(tmp_path / "hf", corpus, 2, False)
    config = cases.import_config(tmp_path / "imported", source)
    ranks.run(1, cases.import_hf, config=config)
    (source / "README.md").write_text("evaluated")
    ranks.run(1, cases.import_hf, config=config)
    run = RunFolder(config.run.dir)
    figures = run.read()["import"]
    folder, files = json.loads(figures["identity"])  # as it was written once, with every file
    run.update(**{"import": figures | {"identity": json.dumps([folder, [["README.md", 7, 1], *files]])}})
    ranks.run(1, cases.import_hf, config=config)
    (source / "model.safetensors").touch()
    said = ranks.run(1, cases.import_to_refusal, config=config)[0]
    assert f"holds {source} as it was when it was imported" in said
    RunFolder(config.run.dir).update(**{"import": None})
    assert "holds checkpoints of another run" in ranks.run(1, cases.import_to_refusal, config=config)[0]


def test_padded_shapes():
    """Both sides of the mapping hold the same numbers, apart from the padded rows."""
    from elm_megatron.model import hf_names

    model = ModelConfig("x", 64, 160, 2, 8, 2, 64, 501)
    sides = (hf_names.hf_shapes, hf_names.megatron_shapes)
    for part in hf_names.parts(model):
        ours, theirs = (sum(math.prod(shape) for shape in side(model, part).values()) for side in sides)
        assert theirs - ours == (11 * 64 if part in ("embedding", "head") else 0)
