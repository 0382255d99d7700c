"""An adapter finds its base: at the step it was tuned on, and in the roundings of an export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from conf.errors import InputError
from elm_megatron.checkpoint import manifest
from elm_megatron.checkpoint.shards import Shard, write_file
from elm_megatron.model import hf_names
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import step_name
from elm_megatron.sources import adapters, fingerprint
from elm_megatron.sources.source import ModelSource, resolve
from elm_megatron.sources.weights import hf_tensors
from tests.elm_megatron.configs import small_model

MODEL = small_model(num_layers=1, vocab_size=120)


def run_of(folder: Path, steps: list[int]) -> RunFolder:
    """A run whose weights are other ones at each step."""
    run = RunFolder(folder)
    run.create()
    run.config.write_text(yaml.safe_dump({"model": vars(MODEL)}))
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        shards = [
            Shard.whole(name, torch.randn(shape, generator=generator) * 0.02)
            for part in hf_names.parts(MODEL)
            for name, shape in hf_names.megatron_shapes(MODEL, part).items()
        ]
        path = run.checkpoints / step_name(step)
        path.mkdir(parents=True)
        manifest.write(
            path, {"step": step, "files": {"a.safetensors": write_file(path / "a.safetensors", shards)}}
        )
    return run


def adapter_on(base: ModelSource, folder: Path) -> Path:
    """A PEFT folder that says it was tuned on a base."""
    folder.mkdir()
    known = fingerprint.of_weights(base.weights)
    facts = {"source": base.name, "base_step": base.weights.step, "base_fingerprint": known.plain}
    (folder / "elm.json").write_text(json.dumps({**facts, "base_fingerprints": known.all}))
    (folder / adapters.CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    out, width = hf_names.projection_shape(MODEL, "q_proj")
    shapes = {"lora_A": (2, width), "lora_B": (out, 2)}
    tensors = {adapters.peft_name(0, "q_proj", m): torch.full(shape, 0.1) for m, shape in shapes.items()}
    save_file(tensors, folder / adapters.TENSORS)
    return folder


def exported(base: ModelSource, folder: Path, dtype: torch.dtype) -> ModelSource:
    """The base as a Hugging Face folder in another type."""
    folder.mkdir()
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
        "vocab_size": MODEL.vocab_size, "hidden_size": MODEL.hidden_size,
        "intermediate_size": MODEL.ffn_hidden_size, "num_hidden_layers": MODEL.num_layers,
        "num_attention_heads": MODEL.num_attention_heads, "num_key_value_heads": MODEL.num_query_groups,
        "max_position_embeddings": MODEL.max_position_embeddings, "rms_norm_eps": MODEL.norm_eps,
        "rope_theta": MODEL.rope_theta, "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in hf_tensors(base.weights)}
    save_file(tensors, folder / "model.safetensors")
    return resolve(str(folder))


def test_a_base_that_went_on_is_found_at_its_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path / "base", [4, 8])
    old, now = resolve(f"{run.path}@4"), resolve(str(run.path))
    assert (old.step, old.weights.step, now.weights.step) == (4, 4, 8)
    adapter = adapter_on(old, tmp_path / "adapter")
    with pytest.raises(InputError, match=rf"at step 4.*belongs to step 4: give source={run.path}@4"):
        _ = resolve(str(run.path), adapter=str(adapter)).weights
    assert resolve(f"{run.path}@4", adapter=str(adapter)).weights.step == 4
    assert adapters.merge(now, adapter, search=True).step == 4
    assert "belongs to step 4" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_export_is_the_same_base_in_every_rounding(dtype: torch.dtype, tmp_path: Path) -> None:
    """Tuned on the run and merged into the export, and the other way round."""
    base = resolve(str(run_of(tmp_path / "base", [4]).path))
    export = exported(base, tmp_path / "export", dtype)
    for tuned, other in ((base, export), (export, base)):
        adapter = adapter_on(tuned, tmp_path / f"adapter-{tuned.folder.name}")
        assert adapters.merge(other, adapter).model.num_layers == MODEL.num_layers
    stranger = resolve(str(run_of(tmp_path / "stranger", [5]).path))
    with pytest.raises(InputError, match="trained on another base"):
        adapters.merge(stranger, tmp_path / "adapter-export")
