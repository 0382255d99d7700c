"""What the rank processes run for the Hugging Face tests, and the configurations they run with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.plain import as_yaml
from conf.schema.data import TrainingData
from conf.schema.hf import ExportConfig, ImportConfig
from conf.schema.model import ModelConfig
from conf.schema.preprocess import CorpusConfig, TokenizerConfig
from conf.schema.pretrain import PretrainConfig
from conf.schema.run import RunConfig
from data_prep.manifest import Manifest
from elm_megatron.model.hf_config import model_config
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import World
from tests.elm_megatron.configs import pretrain_config, small_model


@dataclass
class Made:
    """A trained run and its fp32 export."""

    run: Path
    hf: Path
    model: ModelConfig


VOCAB = 501  # odd: divisible by no tp, padded to 512


def run_to_train(
    folder: Path, data: Path, ranks: int, tied: bool, groups: int, **changes: Any
) -> PretrainConfig:
    """A run of a few steps, its folder prepared as the launcher does."""
    model = small_model(
        num_attention_heads=8,
        num_query_groups=groups,
        max_position_embeddings=512,
        vocab_size=VOCAB,
        tie_embeddings=tied,
        norm_eps=1e-12,
        rope_theta=5000.0,
    )
    values = {"steps": 3, "lr": 3e-2, "min_lr": 3e-2, **changes}
    config = pretrain_config(folder, data, ranks, model, **values)
    config.corpus, config.tokenizer = CorpusConfig(), TokenizerConfig(vocab_size=VOCAB)
    config.data = TrainingData(dir=str(data))
    run = RunFolder(folder)
    run.create()
    run.config.write_text(as_yaml(config))
    run.update(verb="pretrain", manifest_sha256=Manifest.load(data).sha256, git_commit="unknown")
    return config


def export_config(folder: Path, source: Path, **changes: Any) -> ExportConfig:
    """A checked export of `source` into the run folder `folder`."""
    config = ExportConfig(RunConfig(folder.name, str(folder)), str(source), **changes)
    config.check()
    RunFolder(folder).create()
    return config


def train(world: World, config: PretrainConfig) -> str:
    """Train to the end."""
    from elm_megatron.engine.job import Train

    return Train(config)(world)


def export(world: World, config: ExportConfig) -> str:
    """Export; the job as a launcher runs it."""
    from elm_megatron.hf.job import Export

    return Export(config)(world)


def megatron_logits(world: World, step_folder: Path, model: ModelConfig, tokens: list[list[int]]) -> Any:
    """Logits of the whole GPTModel with a checkpoint's weights: numpy float32 [b, s, vocab]."""
    import torch

    from conf.schema.parallel import ParallelConfig
    from elm_megatron.checkpoint import rank_state
    from elm_megatron.checkpoint.manifest import Checkpoint
    from elm_megatron.engine import distributed
    from elm_megatron.model import device as devices
    from elm_megatron.model import llama

    device = devices.prepare("cpu", 0)
    distributed.join(world, device, ParallelConfig())
    try:
        distributed.seed_everything(0)
        config = llama.transformer_config(model, ParallelConfig())
        chunks = llama.build(model, ParallelConfig(), config, transformer_engine=False)
        checkpoint = Checkpoint.open(step_folder)
        rank_state.restore(chunks, None, checkpoint.reader(), checkpoint.step)
        ids = torch.tensor(tokens)
        positions = torch.arange(ids.shape[1])[None].expand_as(ids)
        with torch.no_grad():
            logits = chunks[0].eval()(ids, positions, None)
        return logits[..., : model.vocab_size].float().numpy()
    finally:
        distributed.leave()


def import_config(folder: Path, source: Path) -> ImportConfig:
    """An import of a Hugging Face folder into `folder`, which is prepared as the launcher does."""
    config = ImportConfig(RunConfig(folder.name, str(folder)), str(source), model_config(source, source.name))
    run = RunFolder(folder)
    run.create()
    run.config.write_text(as_yaml(config))
    return config


def import_hf(world: World, config: ImportConfig) -> str:
    """Import; the job as a launcher runs it."""
    from elm_megatron.hf.job import Import

    return Import(config)(world)


def import_to_refusal(world: World, config: ImportConfig) -> str:
    """Import; the sentence it is refused with."""
    from conf.errors import InputError

    try:
        return import_hf(world, config)
    except InputError as error:
        return str(error)


def save_again(world: World, config: PretrainConfig, source: Path) -> None:
    """Load a run's newest weights into a trainer of another layout and save them as its first step."""
    from elm_megatron.checkpoint import rank_state
    from elm_megatron.checkpoint.manifest import Checkpoint
    from elm_megatron.engine import distributed
    from elm_megatron.engine.pretraining import Pretraining
    from elm_megatron.engine.train import Trainer
    from elm_megatron.model import device as devices
    from elm_megatron.run.steps import step_folder

    device = devices.prepare("cpu", 0)
    distributed.join(world, device, config.parallel)
    try:
        distributed.seed_everything(1)
        trainer = Trainer(Pretraining(config, world, device))
        checkpoint = Checkpoint.open(step_folder(RunFolder(source)))
        rank_state.restore(trainer.chunks, trainer.optimizer, checkpoint.reader(), 0, moments=False)
        trainer.step = 1
        trainer.save({"loss": 0.0, "tokens": 0})
        trainer.saver.wait()
    finally:
        distributed.leave()


def export_with_fault(world: World, config: ExportConfig, fault: str) -> str:
    """Export with a fault built in; returns the sentence it is refused with."""
    from unittest import mock

    import torch

    from elm_megatron.hf.gate import GateError
    from elm_megatron.model import hf_config, hf_names

    to_hf, config_json = hf_names.to_hf, hf_config.config_json

    def wrong_tensors(model: Any, part: Any, tensors: Any) -> Any:
        found = dict(to_hf(model, part, tensors))
        if part == 1:
            a, b = (f"model.layers.1.{x}.weight" for x in WRONG[fault])
            found[a], found[b] = {
                "swap": lambda x, y: (y, x),
                "nan": lambda x, y: (torch.full_like(x, torch.nan), y),
                "small": lambda x, y: (x * 1.001, y),
            }[fault.split("-")[0]](found[a], found[b])
        yield from found.items()

    def wrong_settings(*args: Any) -> dict[str, Any]:
        return {**config_json(*args), **WRONG[fault]}

    patch = (
        mock.patch.object(hf_config, "config_json", wrong_settings)
        if isinstance(WRONG[fault], dict)
        else mock.patch.object(hf_names, "to_hf", wrong_tensors)
    )
    with patch:
        try:
            return export(world, config)
        except GateError as refusal:
            return str(refusal)


WRONG: dict[str, Any] = {
    "swap-gate": ("mlp.gate_proj", "mlp.up_proj"),
    "swap-kv": ("self_attn.k_proj", "self_attn.v_proj"),
    "nan": ("mlp.gate_proj", "mlp.up_proj"),
    "small": ("mlp.down_proj", "mlp.up_proj"),
    "theta": {"rope_theta": 6000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 6000.0}},
    "eps": {"rms_norm_eps": 1e-2},
}
