"""Small bases, configurations, and what the rank processes run, for the tests of tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conf.plain import as_yaml
from conf.schema.cluster import ClusterConfig
from conf.schema.hf import ExportConfig
from conf.schema.preprocess import CorpusConfig, TokenizerConfig
from conf.schema.pretrain import PretrainConfig
from conf.schema.run import RunConfig
from conf.schema.tune import DpoConfig, FinetuneConfig, SftConfig, TuneConfig
from elm_megatron.engine.job import Pretrain
from elm_megatron.hf.job import Export
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import World
from elm_megatron.tune.job import Finetune
from tests.elm_megatron.configs import ParallelConfig, small_model

VOCAB = 501  # not a multiple of 128, so that the padding is exercised
INSTRUCTIONS = "pkg://elm_megatron/tune/sample/instructions.jsonl"
PREFERENCES = "pkg://elm_megatron/tune/sample/preferences.jsonl"
TUNE: dict[str, Any] = {
    "steps": 20,
    "epochs": None,
    "precision": "fp32",
    "log_every": 1,
    "global_batch_size": 8,
    "micro_batch_size": 4,
    "seq_length": 256,
    "lr": 1e-3,
    "min_lr": 1e-3,
    "warmup_steps": 0,
    "dropout": 0.0,
    "template": "dialogue",
    "save_every": 1000,
    "eval_every": 1000,
}


def base_model() -> Any:
    """The base's sizes: grouped queries, every layout of four ranks fits."""
    return small_model(vocab_size=VOCAB, max_position_embeddings=256)


def folder_of(config: Any) -> RunFolder:
    """The run's folder with its config.yaml, as the submitter makes it."""
    run = RunFolder(config.run.dir)
    run.create()
    run.config.write_text(as_yaml(config))
    run.update(verb="test")
    return run


def finetune_config(run_dir: Path, source: Path, ranks: int = 1, stage: str = "sft", **changes: Any) -> Any:
    """A checked configuration; `changes` are keys of parallel, tune, sft_… and dpo_…, or model."""
    layout = {k: changes.pop(k) for k in ("tp", "pp", "vpp", "sp") if k in changes}
    sft = {k.removeprefix("sft_"): changes.pop(k) for k in list(changes) if k.startswith("sft_")}
    dpo = {k.removeprefix("dpo_"): changes.pop(k) for k in list(changes) if k.startswith("dpo_")}
    model = changes.pop("model", None) or base_model()
    config = FinetuneConfig(
        run=RunConfig(run_dir.name, str(run_dir)),
        source=str(source),
        stage=stage,
        model=model,
        corpus=CorpusConfig(),
        tokenizer=TokenizerConfig(VOCAB),
        sft=SftConfig(**{"files": [INSTRUCTIONS], **sft}),
        dpo=DpoConfig(**{"files": [PREFERENCES], **dpo}),
        tune=TuneConfig(**{**TUNE, **changes}),
        parallel=ParallelConfig(**layout),
        cluster=ClusterConfig(tasks_per_node=ranks),
    )
    config.check()
    return config


def pretrain(world: World, config: PretrainConfig) -> str:
    """Make a base."""
    return Pretrain(config)(world)


def export(world: World, config: ExportConfig) -> str:
    """Make a Hugging Face folder."""
    return Export(config)(world)


def finetune(world: World, config: FinetuneConfig) -> str:
    """Tune to the end."""
    return Finetune(config)(world)


def finetune_to_refusal(world: World, config: FinetuneConfig) -> str:
    """Tune; the sentence of the refusal it ends in."""
    from conf.errors import InputError

    try:
        return Finetune(config)(world)
    except InputError as error:
        return str(error)


def logits(world: World, config: FinetuneConfig, adapter: str | None, tokens: list[list[int]]) -> Any:
    """Logits of our model with an adapter of a PEFT folder, or its own fresh one: numpy [b, s, vocab]."""
    import torch

    def work(tuner: Any) -> Any:
        from elm_megatron.sources import adapters
        from elm_megatron.sources.source import locate_adapter
        from elm_megatron.tune import lora

        if adapter:
            found = adapters.read(locate_adapter(adapter), config.model)
            lora.load([chunk.module for chunk in tuner.chunks], found.megatron_tensors())
        ids = torch.tensor(tokens)
        with torch.no_grad():
            out = tuner.chunks[0](ids, torch.arange(ids.shape[1]).expand_as(ids), None)
        return out[..., : config.model.vocab_size].float().numpy()

    return with_tuner(world, config, work)


def losses(world: World, config: FinetuneConfig, batches: list[Any]) -> list[Any]:
    """Per-token losses of our model on micro-batches: numpy [b, s] each."""
    import torch

    def work(tuner: Any) -> list[Any]:
        model, found = tuner.chunks[0], []
        with torch.no_grad():
            for batch in batches:
                out = model(
                    batch.tokens,
                    batch.position_ids,
                    None,
                    labels=batch.labels,
                    packed_seq_params=batch.packed,
                )
                found.append(out.float().numpy())
        return found

    return with_tuner(world, config, work)


def held_bytes(world: World, config: FinetuneConfig) -> dict[str, int]:
    """Bytes of a tuned rank after one step, by what they are for."""

    def work(tuner: Any) -> dict[str, int]:
        tuner.train_step()
        params = [p for chunk in tuner.chunks for p in chunk.parameters()]
        frozen = [p for p in params if not p.requires_grad]
        trained = [p for p in params if p.requires_grad]
        buffers = [b for chunk in tuner.chunks for b in chunk.buffers]
        moments = [
            m
            for p in trained
            if (part := tuner.optimizer.owned_part(p))
            for m in tuner.optimizer.moments(part).values()
        ]
        inner = tuner.optimizer._dense.optimizer
        held = sum(v.numel() for state in inner.state.values() for v in state.values() if v.dim() > 0)
        return {
            "frozen": sum(p.numel() for p in frozen),
            "trained": sum(p.numel() for p in trained),
            "frozen gradients": sum(
                p.grad is not None or getattr(p, "main_grad", None) is not None for p in frozen
            ),
            "gradient elements": sum(b.grad_data.numel() for b in buffers),
            "moment elements": sum(m.numel() for m in moments),
            "optimizer state elements": held,
        }

    return with_tuner(world, config, work)


def with_tuner(world: World, config: FinetuneConfig, work: Any) -> Any:
    """Build a tuner in a world and do something with it."""
    from elm_megatron.model import device as devices

    device = devices.prepare("cpu", world.local_rank)
    from elm_megatron.engine import distributed
    from elm_megatron.tune.dpo import DpoTuner
    from elm_megatron.tune.tuner import Tuner

    distributed.join(world, device, config.parallel)
    try:
        distributed.seed_everything(config.tune.seed)
        tuner = {"sft": Tuner, "dpo": DpoTuner}[config.stage](config, world, device)
        return work(tuner)
    finally:
        distributed.leave()


def count_on_meta(world: World, model: Any, tune: TuneConfig) -> int:
    """Trainable parameters of a model built without memory, in a process of its own."""
    import subprocess
    import sys

    code = (
        "import sys, pickle; from elm_megatron.model import device; device.pretend();"
        "from elm_megatron.tune.preflight import trainable_parameters;"
        "print(trainable_parameters(*pickle.loads(bytes.fromhex(sys.argv[1]))))"
    )
    import pickle

    argument = pickle.dumps((model, tune)).hex()
    out = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=True)
    return int(out.stdout)
