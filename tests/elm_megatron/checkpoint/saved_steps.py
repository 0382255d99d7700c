"""Checkpoints for tests: a small matrix, saved by one rank."""

from __future__ import annotations

from pathlib import Path

import torch

from elm_megatron.checkpoint.retention import Retention
from elm_megatron.checkpoint.save import CheckpointSaver
from elm_megatron.checkpoint.shards import Shard
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import step_name
from elm_megatron.run.world import World


def shard(value: float) -> Shard:
    """A small matrix of one number."""
    return Shard.whole("w", torch.full((4, 4), value))


def saved(run: RunFolder, step: int, last: int = 10) -> Path:
    """Save a step; returns its folder."""
    saver = CheckpointSaver(run, World.single(run.path), Retention(last=last))
    saver.save(step, [shard(float(step))], {})
    saver.wait()
    return run.checkpoints / step_name(step)
