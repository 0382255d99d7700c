"""Small configurations for engine tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conf.schema.cluster import ClusterConfig
from conf.schema.data import TrainingData
from conf.schema.model import ModelConfig
from conf.schema.parallel import ParallelConfig
from conf.schema.preprocess import CorpusConfig, TokenizerConfig
from conf.schema.pretrain import PretrainConfig
from conf.schema.run import RunConfig
from conf.schema.train import TrainConfig
from tests.elm_megatron.small_dataset import VOCAB

DATA = ("blend", "reset_attention_mask", "eod_mask_loss")
TRAIN: dict[str, Any] = {
    "steps": 10,
    "epochs": None,
    "precision": "fp32",
    "warmup_steps": 0,
    "log_every": 1,
    "eval_batches": None,
    "global_batch_size": 8,
    "micro_batch_size": 2,
    "seq_length": 64,
    "lr": 3e-3,
    "min_lr": 3e-3,
    "save_every": 1000,
    "eval_every": 1000,
}


def small_model(**changes: Any) -> ModelConfig:
    """A model that every layout of four ranks can hold."""
    values: dict[str, Any] = {
        "name": "test",
        "hidden_size": 64,
        "ffn_hidden_size": 160,
        "num_layers": 4,
        "num_attention_heads": 4,
        "num_query_groups": 2,
        "max_position_embeddings": 64,
        "vocab_size": VOCAB,
    }
    return ModelConfig(**{**values, **changes})


def loop(**changes: Any) -> TrainConfig:
    """A training loop without a length or a warm-up of its own."""
    return TrainConfig(**{"epochs": None, "warmup_steps": 0, "global_batch_size": 32, **changes})


def pretrain_config(
    run_dir: Path, data_dir: Path, ranks: int = 1, model: ModelConfig | None = None, **changes: Any
) -> PretrainConfig:
    """A checked pretraining configuration; `changes` are keys of parallel, data and train."""
    data = {k: changes.pop(k) for k in DATA if k in changes}
    layout = {k: changes.pop(k) for k in ("tp", "pp", "vpp", "cp", "sp") if k in changes}
    config = PretrainConfig(
        run=RunConfig(run_dir.name, str(run_dir)),
        model=model or small_model(),
        corpus=CorpusConfig(name="small"),
        tokenizer=TokenizerConfig(vocab_size=512),
        data=TrainingData(**{"dir": data_dir, **data}),
        train=TrainConfig(**{**TRAIN, **changes}),
        parallel=ParallelConfig(**layout),
        cluster=ClusterConfig(tasks_per_node=ranks),
    )
    config.check()
    return config
