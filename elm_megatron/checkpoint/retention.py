"""Which committed checkpoints stay, and which a save removes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from conf.errors import InputError
from conf.schema.train import TrainConfig
from data_prep import files
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import committed, step_name

NEEDED = "needed-by"  # folder of marker files: {"step": 200, "run": the run whose adapter needs that step}


@dataclass(frozen=True)
class Retention:
    """Which committed checkpoints stay.

    Attributes:
        last: this many of the newest.
        every: also those of steps that this divides; None for none.
        best: also the one with the lowest validation loss.
    """

    last: int
    every: int | None = None
    best: bool = False

    @classmethod
    def of(cls, train: TrainConfig) -> Retention:
        """As configured."""
        return cls(train.keep_last, train.keep_every, train.keep_best)

    def to_keep(self, folders: list[Path]) -> set[Path]:
        """Of step folders, newest first, those to keep; also each that cannot be read now."""
        keep = set(folders[: self.last])
        checkpoints = []
        for folder in folders:
            try:
                checkpoints.append(Checkpoint.open(folder))
            except files.Unreadable:
                keep.add(folder)
            except InputError:
                continue  # damaged
        if self.every:
            keep |= {c.folder for c in checkpoints if c.step % self.every == 0}
        measured = [c for c in checkpoints if c.manifest.get("valid_loss") is not None]
        if self.best and measured:
            keep.add(min(measured, key=lambda c: c.manifest["valid_loss"]).folder)
        return keep

    def remove_old(self, run: RunFolder, newest: Path) -> None:
        """Remove the committed checkpoints of a run that need not stay.

        Raises:
            OSError: one cannot be removed.
        """
        folders = committed(run)
        needed = {run.checkpoints / step_name(step) for step in needed_steps(run)}
        for folder in set(folders) - self.to_keep(folders) - needed - {newest}:
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a step folder; cut off in between it leaves no checkpoint that lacks files, but a leftover."""
    gone = folder.with_name(f".{folder.name}.{os.getpid()}.gone.tmp")
    folder.rename(gone)
    shutil.rmtree(gone)


def mark_needed(base: RunFolder, step: int, run: Path) -> None:
    """Leave a marker file with a base run: a finetune run's adapter needs the weights of this step.

    The base's retention then keeps the step. Deleting the marker file lets go of it.

    Raises:
        OSError: the base's folder cannot be written.
    """
    folder = base.checkpoints / NEEDED
    folder.mkdir(mode=0o700, exist_ok=True)
    name = hashlib.sha256(str(run).encode()).hexdigest()[:16]
    files.write(folder / f"{step_name(step)}-{name}.json", json.dumps({"step": step, "run": str(run)}))


def needed_steps(run: RunFolder) -> set[int]:
    """Steps of a run that adapters need, by its marker files."""
    steps = set()
    for path in (run.checkpoints / NEEDED).glob("*.json"):
        try:
            steps.add(int(json.loads(path.read_text(encoding="utf-8"))["step"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not ours
    return steps
