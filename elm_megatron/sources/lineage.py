"""The runs behind a model, from what run.json and config.yaml say of each: pretraining, then every tuning.

A run is followed back to its base or to the run it began with, an import and an exported folder to what
they were made of, adapters included. What lies in no run (a foreign folder) has no runs behind it; a run that
is gone stands there as lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import InputError
from conf.names import MODEL_FOLDER
from data_prep.manifest import Manifest
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import (
    export_record,
    is_hf_folder,
    is_model,
    recorded_folder,
    run_config,
    split_step,
)
from elm_megatron.sources.source import find_base
from elm_megatron.sources.tokenizer_files import recorded_manifest

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
    stages, followed = _behind(folder, followed), [*followed, folder.resolve()]
    if adapter is None:
        return stages
    known = {stage.run.path.resolve() for stage in stages}
    tuned = [s for s in stages_of(adapter.parent, None, followed) if s.tuning]
    tuned = [s for s in tuned if s.run.path.resolve() not in known]
    return [*stages, *(tuned or [Stage(RunFolder(adapter), {"verb": "finetune"}, {})])]


def _behind(folder: Path, followed: Sequence[Path]) -> list[Stage]:
    if is_hf_folder(folder / MODEL_FOLDER):
        folder = folder / MODEL_FOLDER  # of an export run
    seen = folder.resolve() in followed
    followed = [*followed, folder.resolve()]
    if is_hf_folder(folder) and not seen:
        return _behind_export(folder, followed)
    run = RunFolder(folder)
    if not run.config.is_file():
        return [Stage(run, {"verb": LOST}, {})]
    stage = Stage.read(run)
    if made := stage.record.get("import"):
        return stages_of(recorded(run, str(made["source"])), None, followed) or [stage]
    if (made := stage.record.get("export")) and not seen:  # a GGUF file
        return _made_of(run, made, followed)
    before = _before(stage)
    return [stage] if seen or before is None else [*stages_of(before, None, followed), stage]


def _behind_export(folder: Path, followed: Sequence[Path]) -> list[Stage]:
    made = export_record(folder)
    if not made:
        return []
    run = RunFolder(folder.parent if folder.name == MODEL_FOLDER else folder.resolve().parent)
    return _made_of(run, made, followed)


def _made_of(run: RunFolder, made: dict[str, Any], followed: Sequence[Path]) -> list[Stage]:
    """The runs behind an export, whose run.json has the source and the adapter."""
    adapter = None
    if made.get("adapter"):
        merged = Path(made["adapter"])
        adapter = recorded(run, str(merged.parent)) / merged.name
    return stages_of(recorded(run, str(made["source"])), adapter, followed)


def _before(stage: Stage) -> Path | None:
    """The folder of the model that a run began with; None for a run that began with nothing."""
    if stage.config.get("tune") is not None and stage.config.get("source"):
        given = split_step(str(stage.config["source"]))[0]
        return find_base(stage.run, stage.config, stage.record) or Path(given)
    begun = (stage.config.get("train") or {}).get("init_from")
    return recorded(stage.run, split_step(str(begun))[0]) if begun else None


def recorded(run: RunFolder, source: str) -> Path:
    """Where a recorded source is now, or where it was."""
    given = Path(source)
    exported = given.name == MODEL_FOLDER
    folder = given.parent if exported else given
    found = recorded_folder(run, str(folder), is_model, folder.name)
    return given if found is None else (found / MODEL_FOLDER if exported else found)


def dataset_of(stages: Sequence[Stage]) -> Path | None:
    """The folder of the dataset that the last of these runs with one was trained on, where it is now."""
    for stage in reversed(stages):
        if folder := (stage.config.get("data") or {}).get("dir"):
            found = recorded_manifest(stage.run, str(folder), stage.record.get("manifest_sha256"))
            return found.folder if found else Path(folder).expanduser()
    return None


def manifest_of(stages: Sequence[Stage]) -> Manifest | None:
    """The manifest of that dataset; None where it is not there any more as it was."""
    folder = dataset_of(stages)
    try:
        found = Manifest.load(folder) if folder is not None else None
    except InputError:
        return None
    trained = {stage.record.get("manifest_sha256") for stage in stages}
    return found if found is not None and found.sha256 in trained else None


@dataclass(frozen=True)
class TrainedOn:
    """A dataset that a model was trained on.

    Attributes:
        folder: as its run recorded it.
        sha256: of its manifest; None is unknown.
        manifest: the dataset; None where it is not there any more as it was.
    """

    folder: str
    sha256: str | None
    manifest: Manifest | None


def datasets_of(stages: Sequence[Stage], known: Manifest | None = None) -> list[TrainedOn]:
    """Every dataset that the runs of a model were pretrained on, each part of a blend by itself.

    Args:
        stages: the runs.
        known: a dataset that was found already, wherever it is now.
    """
    found: dict[str, TrainedOn] = {}
    for stage in stages:
        folder, sha256 = (stage.config.get("data") or {}).get("dir"), stage.record.get("manifest_sha256")
        if stage.tuning or not folder:
            continue
        for part in stage.record.get("blend") or [{"dir": folder, "manifest_sha256": sha256}]:
            digest, place = part.get("manifest_sha256"), str(part["dir"])
            if known is not None and digest == known.sha256:
                manifest = known
            else:
                manifest = recorded_manifest(stage.run, place, digest) if digest else None
            found.setdefault(digest or place, TrainedOn(place, digest, manifest))
    return list(found.values())


def preparation(first: Stage) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The run that made a first stage's dataset, where it is beside it: its verb, record and settings."""
    data = (first.config.get("data") or {}).get("dir")
    if not data:
        return []
    for path in sorted(first.run.path.parent.glob("*/run.json")):
        other = RunFolder(path.parent)
        with contextlib.suppress(InputError):
            record = other.read()
            made = (run_config(other).get("data") or {}).get("dir") if other.config.is_file() else None
            if record.get("verb") == "preprocess" and made and Path(made).resolve() == Path(data).resolve():
                return [("Preparing the data", record, run_config(other))]
    return []
