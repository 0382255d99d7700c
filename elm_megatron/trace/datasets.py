"""Which datasets a model was trained on, and where the index of each is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conf.errors import InputError
from data_prep.manifest import LINEAGE, Manifest
from elm_megatron.sources.lineage import Stage, stages_of
from elm_megatron.sources.places import recorded_folder
from elm_megatron.sources.source import resolve

FOLDER = "trace"


@dataclass(frozen=True)
class Traced:
    """A dataset that a model was trained on.

    Attributes:
        manifest: as it is now.
        changed: it was built again, or a work was taken down, since the model was trained.
        places: where its index may be; the first that can be written gets a new one.
    """

    manifest: Manifest
    changed: bool
    places: tuple[Path, ...]


def datasets_of(source: str, data_dir: str | None = None, index_dir: str | None = None) -> list[Traced]:
    """The datasets of the pretraining runs behind a model, each once, the newest run's first.

    Args:
        source: a run, a tuned run, or a Hugging Face folder that was exported from one.
        data_dir: the dataset, where it is not to be found out.
        index_dir: the folder for indexes, where that is wanted.

    Raises:
        InputError: there is no such model, it names no dataset, or one of its datasets is gone.
    """
    found = resolve(source)
    own = found.run.path if found.run else None
    if data_dir is not None:
        manifests = [(Manifest.load(Path(data_dir).expanduser()), False, own)]
    else:
        stages = [stage for stage in stages_of(found.folder, found.merged) if not stage.tuning]
        manifests = [one for stage in reversed(stages) for one in _of_stage(stage)]
    if not manifests:
        raise InputError(f"source={source}: names no dataset; give data.dir=<folder>.")
    traced = {
        manifest.folder.resolve(): Traced(manifest, changed, tuple(_places(manifest, run, index_dir)))
        for manifest, changed, run in reversed(manifests)
    }
    return list(reversed(traced.values()))


def _places(manifest: Manifest, run: Path | None, index_dir: str | None) -> Iterator[Path]:
    """In the dataset's folder, or where that cannot be written in the run's, named by the dataset's hash."""
    name = manifest.splits["train"].bin.sha256[:16]
    if index_dir is not None:
        yield Path(index_dir).expanduser().absolute() / name
        return
    yield manifest.folder / FOLDER
    if run is not None:
        yield run / FOLDER / name


def _of_stage(stage: Stage) -> Iterator[tuple[Manifest, bool, Path]]:
    """(dataset, whether it has changed, the run) of a pretraining run; those of a blend."""
    data = stage.config.get("data") or {}
    blend = stage.record.get("blend") or data.get("blend") or []
    parts = [(part["dir"], part.get("manifest_sha256")) for part in blend]
    if not parts and data.get("dir"):
        parts = [(data["dir"], stage.record.get("manifest_sha256"))]
    for folder, trained in parts:
        manifest = _now(stage, str(folder), trained)
        yield manifest, trained not in (None, manifest.sha256), stage.run.path


def _now(stage: Stage, folder: str, trained: str | None) -> Manifest:
    """A recorded dataset where it is now: the very one, or a later build of it.

    Raises:
        InputError: it is gone.
    """

    def is_it(place: Path) -> bool:
        try:
            return trained in (None, Manifest.load(place).sha256)
        except InputError:
            return False

    def is_later(place: Path) -> bool:
        path = place / LINEAGE
        return path.is_file() and trained is not None and trained in path.read_text(encoding="utf-8")

    found = recorded_folder(stage.run, folder, is_it) or recorded_folder(stage.run, folder, is_later)
    if found is None:
        raise InputError(
            f"{stage.run.path}: the dataset it was trained on ({folder}) is gone, or another one is there "
            "now; give data.dir=<folder of that dataset>."
        )
    return Manifest.load(found)
