"""The runs behind a model, from what run.json and config.yaml say of each: pretraining, then every tuning.

A run is followed back to its base or to the run it began with, an import and an exported folder to what
they were made of, adapters included. What lies in no run (a foreign folder) has no runs behind it; a run that
is gone stands there as lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import InputError
from data_prep.manifest import Manifest
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.source import (
    base_of,
    export_record,
    hf_folder,
    is_hf_folder,
    locate,
    run_config,
    without_step,
)

LOST = "Earlier training, its records lost"


@dataclass(frozen=True)
class Stage:
    """One training run behind a model: its folder, run.json and config.yaml, {} where they are lost."""

    run: RunFolder
    record: dict[str, Any]
    config: dict[str, Any]

    @classmethod
    def read(cls, run: RunFolder) -> Stage:
        """Read a run's two files."""
        return cls(run, run.read(), run_config(run))

    @property
    def name(self) -> str:
        """The run's, or its folder's."""
        return (self.config.get("run") or {}).get("name", self.run.path.name)

    @property
    def tuning(self) -> bool:
        """Whether it tuned an adapter."""
        return self.record.get("verb") == "finetune" or "tune" in self.config

    @property
    def settings(self) -> dict[str, Any]:
        """The loop's keys: train.* or tune.*."""
        return self.config.get("tune") or self.config.get("train") or {}


def stages_of(folder: Path, adapter: Path | None = None, followed: Sequence[Path] = ()) -> list[Stage]:
    """The runs behind a model, first to last.

    Args:
        folder: a run's or a Hugging Face folder.
        adapter: a PEFT folder merged into it.
        followed: where the way back has been already: an export may have been made anew from its own child.
    """
    stages, followed = _behind(folder, followed), [*followed, folder]
    if adapter is None:
        return stages
    known = {stage.run.path for stage in stages}
    tuned = [s for s in stages_of(adapter.parent, None, followed) if s.tuning and s.run.path not in known]
    return [*stages, *(tuned or [Stage(RunFolder(adapter), {"verb": "finetune"}, {})])]


def _behind(folder: Path, followed: Sequence[Path]) -> list[Stage]:
    if is_hf_folder(folder) and folder not in followed:
        made = export_record(folder)
        adapter = Path(made["adapter"]) if made.get("adapter") else None
        return stages_of(Path(made["source"]), adapter, [*followed, folder]) if made else []
    run = RunFolder(folder)
    if not run.config.is_file():
        return [Stage(run, {"verb": LOST}, {})]
    stage = Stage.read(run)
    if made := stage.record.get("import"):
        return stages_of(Path(made["source"]), None, [*followed, folder]) or [stage]
    before = base_of(run) or (stage.config.get("train") or {}).get("init_from")
    if folder in followed or before is None:
        return [stage]
    return [*stages_of(_place(without_step(before)), None, [*followed, folder]), stage]


def _place(source: str) -> Path:
    """Where a source lies, or lay."""
    try:
        return hf_folder(source) or locate(source)
    except InputError:
        return Path(source)


def dataset_of(stages: Sequence[Stage]) -> Path | None:
    """The folder of the dataset that the last of these runs with one was trained on."""
    named = [(stage.config.get("data") or {}).get("dir") for stage in stages]
    return next((Path(folder).expanduser() for folder in reversed(named) if folder), None)


def manifest_of(stages: Sequence[Stage]) -> Manifest | None:
    """The manifest of that dataset; None where it does not lie there any more as it was."""
    folder = dataset_of(stages)
    try:
        found = Manifest.load(folder) if folder is not None else None
    except InputError:
        return None
    trained = {stage.record.get("manifest_sha256") for stage in stages}
    return found if found is not None and found.sha256 in trained else None
