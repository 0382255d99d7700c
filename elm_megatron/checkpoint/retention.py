"""Which committed checkpoints stay, and which a save removes."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from conf.errors import InputError
from conf.schema.train import TrainConfig
from data_prep import files
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.run import evaluations
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import committed, step_name

RUNS = Path("runs")  # of the folder the command was given in


@dataclass(frozen=True)
class Retention:
    """Which committed checkpoints stay.

    Attributes:
        last: this many of the newest.
        every: also those of steps that this divides; None for none.
        best: also the one with the lowest validation loss.
        before: also the newest of this step or an earlier one, to go on from with more
            steps; None for none.
        evaluated: also those that are to be evaluated, or are being evaluated.
    """

    last: int
    every: int | None = None
    best: bool = False
    before: int | None = None
    evaluated: bool = False

    @classmethod
    def of(cls, train: TrainConfig, evaluated: bool = False) -> Retention:
        """As configured."""
        decays = train.schedule == "wsd" and train.steps is not None
        before = train.steps - train.wsd_decay_steps if decays else None
        return cls(train.keep_last, train.keep_every, train.keep_best, before, evaluated)

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
        if self.before is not None:
            keep |= {c.folder for c in [c for c in checkpoints if c.step <= self.before][:1]}
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
        steps = needed_steps(run) | (evaluations.protected(run) if self.evaluated else set())
        needed = {run.checkpoints / step_name(step) for step in steps}
        for folder in set(folders) - self.to_keep(folders) - needed - {newest}:
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a step folder; cut off in between it leaves no checkpoint that lacks files, but a leftover."""
    gone = folder.with_name(f".{folder.name}.{os.getpid()}.gone.tmp")
    folder.rename(gone)
    shutil.rmtree(gone)


def needed_steps(run: RunFolder) -> set[int]:
    """Steps of a run that adapters need: those that finetune runs beside it, or in runs/, began with.

    The base's own folder is not written to by those runs, so their records are looked at.
    """
    steps = set()
    for folder in {run.path.parent.resolve(), RUNS.resolve()}:
        for path in folder.glob("*/run.json"):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                if record.get("base_step") is not None and _is_base(run, Path(record["base"])):
                    steps.add(int(record["base_step"]))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # no record of ours
    return steps


def _is_base(run: RunFolder, base: Path) -> bool:
    """Whether a recorded base is a run; a project that was moved has its runs beside each other still."""
    return base.resolve() == run.path.resolve() or (not base.exists() and base.name == run.path.name)
