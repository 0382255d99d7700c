"""What the rank processes run: module-level functions, so that they can be sent to them."""

from __future__ import annotations

import os
import signal
from typing import Any

from elm_megatron.config import PretrainConfig
from elm_megatron.engine.job import Pretrain
from elm_megatron.run_folder import RunFolder
from elm_megatron.world import World


def train(world: World, config: PretrainConfig) -> str:
    """Train to the end."""
    return Pretrain(config)(world)


def train_with_signal(world: World, config: PretrainConfig, step: int, number: int) -> str:
    """Train; one rank gets a signal in the middle of a step."""
    from elm_megatron.engine.train import Trainer

    original = Trainer.train_step

    def train_step(self: Trainer) -> Any:
        if self.step == step - 1 and self.world.rank == world.world_size - 1:
            os.kill(os.getpid(), number)
        return original(self)

    Trainer.train_step = train_step  # type: ignore[method-assign]
    try:
        return Pretrain(config)(world)
    finally:
        Trainer.train_step = original  # type: ignore[method-assign]
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(name, signal.SIG_DFL)


def train_to_bad_numbers(world: World, config: PretrainConfig, step: int) -> str:
    """Train; before `step` a matrix becomes NaN. Returns the refusal's text."""
    import torch

    from elm_megatron.engine import distributed
    from elm_megatron.engine.guards import BadNumbers
    from elm_megatron.engine.train import Trainer

    original = Trainer.train_step

    def train_step(self: Trainer) -> Any:
        if self.step == step - 1 and self.world.rank == 0:
            with torch.no_grad():
                next(self.chunks[0].parameters()).fill_(float("nan"))
        return original(self)

    Trainer.train_step = train_step  # type: ignore[method-assign]
    try:
        return Pretrain(config)(world)
    except BadNumbers as e:
        return str(e)
    finally:
        Trainer.train_step = original  # type: ignore[method-assign]
        distributed.leave()


def folder(config: PretrainConfig) -> RunFolder:
    """The run's folder, made as the submitter makes it."""
    run = RunFolder(config.run.dir)
    run.create()
    return run
