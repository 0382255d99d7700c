"""Finding a checkpoint that all ranks agree is intact; the ranks share the work of verifying it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from data_prep.errors import InputError
from elm_megatron.engine import distributed
from elm_megatron.engine.checkpoint import Checkpoint, committed, step_folder
from elm_megatron.hf.source import locate
from elm_megatron.run_folder import RunFolder
from elm_megatron.world import World


def newest_verified(run: RunFolder, world: World, device: torch.device) -> Checkpoint | None:
    """The newest checkpoint that is intact, saying aloud which were passed over; None when there is none."""
    folders: list[Any] = [committed(run)]
    dist.broadcast_object_list(folders, src=0, device=device)
    for folder in folders[0]:
        try:
            return verified(folder, world, device)
        except InputError as problem:
            print(f"warning: checkpoint passed over: {problem}", file=sys.stderr, flush=True)
    return None


def named(source: str, world: World, device: torch.device) -> Checkpoint:
    """The checkpoint `train.init_from` names: a run's name or folder, with @STEP for an older step.

    Raises:
        InputError: there is no such run or step, or it is damaged.
    """
    name, _, step = source.partition("@")
    return verified(step_folder(RunFolder(locate(name)), int(step) if step else None), world, device)


def verified(folder: Path, world: World, device: torch.device) -> Checkpoint:
    """A step folder's checkpoint; each rank checks its share of the files, and all learn of a fault.

    Raises:
        InputError: on every rank, when any found a fault.
    """
    problem, checkpoint = None, None
    try:
        checkpoint = Checkpoint.open(folder)
        checkpoint.verify(world.rank, world.world_size)
    except InputError as e:
        problem = e
    if distributed.largest(float(problem is not None), device) or checkpoint is None:
        raise problem or InputError(f"{folder}: another rank found it damaged.")
    return checkpoint
