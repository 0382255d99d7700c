"""Finding a checkpoint that all ranks agree is intact; the ranks share the work of verifying it."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from conf.errors import InputError
from elm_megatron.checkpoint.save import Checkpoint, committed, step_folder
from elm_megatron.engine import distributed
from elm_megatron.run.folder import RunFolder, write_atomically
from elm_megatron.run.world import World
from elm_megatron.sources import tokenizer_files
from elm_megatron.sources.source import locate


def newest_verified(run: RunFolder, world: World, device: torch.device) -> Checkpoint | None:
    """The newest checkpoint that is intact; None when the run has none.

    Those passed over are named aloud and renamed, so that nobody takes them for the newest.

    Raises:
        InputError: there are some, and none is intact; a run never starts over silently.
    """
    shared: list[Any] = [committed(run)]
    dist.broadcast_object_list(shared, src=0, device=device)
    (folders,) = shared
    for number, folder in enumerate(folders):
        try:
            checkpoint = verified(folder, world, device)
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


def _set_aside(run: RunFolder, damaged: list[Path], good: Checkpoint) -> None:
    write_atomically(run.latest, f"{good.folder.name}\n")
    for folder in damaged:
        aside = folder.with_name(f"damaged-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)  # an earlier one of the same step
        folder.rename(aside)


def named(source: str, world: World, device: torch.device) -> Checkpoint:
    """The checkpoint `train.init_from` names: a run's name or folder, with @STEP for an older step.

    Raises:
        InputError: there is no such run or step, or it is damaged.
    """
    name, step = _run_of(source)
    return verified(step_folder(RunFolder(locate(name, "train.init_from")), step), world, device)


def require_tokenizer(source: str, sha256: str) -> None:
    """Refuse a run or folder whose tokenizer is another, if it can be told.

    Raises:
        InputError: the same ids are other pieces of text there.
    """
    try:
        before = tokenizer_files.of_run(RunFolder(locate(_run_of(source)[0])), None).info.sha256
    except InputError:
        return  # its dataset is gone
    if before != sha256:
        raise InputError(
            f"train.init_from={source}: was trained with another tokenizer ({before[:12]}…) than that of "
            f"data.dir ({sha256[:12]}…), whose ids mean other pieces; build one with tokenizer.model."
        )


def _run_of(source: str) -> tuple[str, int | None]:
    """Name or folder, and the step behind an @."""
    name, _, step = source.rpartition("@") if re.search(r"@\d+$", source) else (source, "", "")
    return name, int(step) if step else None


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
