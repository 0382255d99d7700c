"""What `train.init_from` names: a run's name or folder, with @STEP for an older step."""

from __future__ import annotations

import re

import torch

from conf.errors import InputError
from elm_megatron.checkpoint.load import verified
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import step_folder
from elm_megatron.run.world import World
from elm_megatron.sources import tokenizer_files
from elm_megatron.sources.source import locate


def named(source: str, world: World, device: torch.device) -> Checkpoint:
    """The checkpoint a source names; every rank calls it.

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
