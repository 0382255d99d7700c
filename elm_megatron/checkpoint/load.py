"""Which checkpoint a run goes on from: the newest one that all ranks agree is intact.

Ranks share the work of verifying. A damaged checkpoint is passed over, and renamed once an older one is found
intact. A checkpoint that cannot be read now is not damaged: reading is tried again, and then refused.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from conf.errors import InputError
from data_prep import files
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.resume import require_known_steps
from elm_megatron.run.steps import committed, incomplete
from elm_megatron.run.world import World

INTACT, DAMAGED, UNREADABLE = 0, 1, 2


def newest_verified(run: RunFolder, world: World, device: torch.device) -> Checkpoint | None:
    """The newest checkpoint that is intact; None when the run has made none.

    Those passed over are named aloud and renamed, so that nobody takes them for the newest.

    Raises:
        InputError: there were some, and none is intact; a run never starts over silently.
        Unreadable: one cannot be read now.
    """
    folders = _folders(run, world, device)
    for number, folder in enumerate(folders):
        try:
            checkpoint = verified(folder, world, device)
        except files.Unreadable:
            raise
        except InputError as problem:
            print(f"warning: checkpoint passed over: {problem}", file=sys.stderr, flush=True)
            continue
        if number and world.rank == 0:
            _set_aside(run, folders[:number], checkpoint)
        return checkpoint
    if folders:
        raise InputError(
            f"{run.checkpoints}: none of its {len(folders)} checkpoints is intact; put one back, or begin "
            "anew under another run.name."
        )
    return None


def _folders(run: RunFolder, world: World, device: torch.device) -> list[Path]:
    """The run's complete step folders as rank 0 sees them, newest first.

    Raises:
        InputError: on every rank: there are none, and the run was saved before.
    """
    shared: list[Any] = [None]
    if world.rank == 0:
        try:
            files.finish_replacements(run.checkpoints)
            shared = [committed(run)]
            if not shared[0]:
                require_known_steps(run)
                run.update(checkpoint_step=0)  # none was committed until the saver says so
            for folder in incomplete(run):
                print(f"warning: {folder}: has no manifest and is passed over", file=sys.stderr, flush=True)
        except InputError as refusal:
            shared = [refusal]
    dist.broadcast_object_list(shared, src=0, device=device)
    if isinstance(shared[0], InputError):
        raise shared[0]
    return shared[0]


def _set_aside(run: RunFolder, damaged: list[Path], good: Checkpoint) -> None:
    files.write(run.latest, f"{good.folder.name}\n")
    for folder in damaged:
        aside = folder.with_name(f"damaged-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)  # an earlier one of the same step
        folder.rename(aside)


def verified(folder: Path, world: World, device: torch.device) -> Checkpoint:
    """A step folder's checkpoint; each rank checks its share of the files, and all learn of a fault.

    Raises:
        InputError: on every rank, when any found a fault.
        Unreadable: on every rank, when any could not read its share.
    """
    problem: InputError | None = None
    checkpoint, found = None, INTACT
    try:
        checkpoint = Checkpoint.open(folder)
        checkpoint.verify(world.rank, world.world_size)
    except files.Unreadable as error:
        problem, found = error, UNREADABLE
    except InputError as error:
        problem, found = error, DAMAGED
    worst = torch.tensor([found], device=device)
    dist.all_reduce(worst, op=dist.ReduceOp.MAX)
    if worst.item() == UNREADABLE and found != UNREADABLE:
        raise files.Unreadable(f"{folder}: another rank cannot read it now.")
    if worst.item() != INTACT or checkpoint is None:
        raise problem or InputError(f"{folder}: another rank found it damaged.")
    return checkpoint
