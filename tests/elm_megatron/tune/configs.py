"""Small bases and configurations for the tests of tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conf.plain import as_yaml
from conf.schema.cluster import ClusterConfig
from conf.schema.preprocess import CorpusConfig, TokenizerConfig
from conf.schema.run import RunConfig
from conf.schema.tune import DpoConfig, FinetuneConfig, SftConfig, TuneConfig
from elm_megatron.run.folder import RunFolder
from tests.elm_megatron.configs import ParallelConfig, small_model

VOCAB = 501  # of the sample corpus; not a multiple of 128, so that the padding is exercised
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
