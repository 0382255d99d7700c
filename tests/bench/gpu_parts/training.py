"""A pretraining run in this process, as the parts of the GPU bench need it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conf.plain import as_yaml
from conf.schema.model import ModelConfig
from elm_megatron.model import device as devices
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import World
from tests.elm_megatron.configs import pretrain_config, small_model

MODEL = {"hidden_size": 256, "ffn_hidden_size": 512, "num_query_groups": 4}


def pretrain(
    folder: Path,
    data: Path,
    device: str,
    precision: str = "bf16",
    model: ModelConfig | None = None,
    transformer_engine: bool = True,
    profile: Path | None = None,
    **changes: Any,
) -> RunFolder:
    """Train to the end; a folder that holds a run goes on from its newest checkpoint.

    Args:
        transformer_engine: False takes torch's layers also where Transformer Engine is installed.
        profile: a table of the kernels of the last step but one is written there, on a GPU.
        changes: keys of parallel, data and train.
    """
    prepared = devices.prepare(device, 0)
    from elm_megatron.engine import distributed, train
    from elm_megatron.engine.job import Train
    from elm_megatron.model import kernels

    config = pretrain_config(folder, data, 1, model or small_model(**MODEL), **changes)
    config.cluster.device, config.train.precision = device, precision
    run = RunFolder(folder)
    run.create()
    run.config.write_text(as_yaml(config), encoding="utf-8")
    installed, step = kernels.has_transformer_engine, train.Trainer.train_step
    if not transformer_engine:
        kernels.has_transformer_engine = lambda: False
    if profile and devices.is_gpu(prepared):
        train.Trainer.train_step = _profiled(step, profile)
    try:
        Train(config)(World.single(folder))
    finally:
        kernels.has_transformer_engine, train.Trainer.train_step = installed, step
        distributed.leave()
    return run


def _profiled(step: Any, path: Path) -> Any:
    def train_step(self: Any) -> Any:
        import torch

        if self.step != self.steps - 2:
            return step(self)
        kinds = torch.profiler.ProfilerActivity
        with torch.profiler.profile(activities=[kinds.CUDA, kinds.CPU]) as profile:
            done = step(self)
        path.write_text(
            profile.key_averages().table(sort_by="cuda_time_total", row_limit=45), encoding="utf-8"
        )
        return done

    return train_step
