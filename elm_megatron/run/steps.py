"""The step folders of a run: `checkpoints/step-00000200/`, complete when it has a manifest.json.

Only folders with exactly such a name belong to the suite. A copy beside them (`step-00000200-keep`, an
archive, a link) is somebody's own: nothing here reads, renames or removes it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from conf.errors import InputError
from data_prep.files import reading
from elm_megatron.run.folder import RunFolder

MANIFEST = "manifest.json"
_LEFTOVER = re.compile(r"\.step-\d{8,}\.[^/]+\.tmp")


def step_name(step: int) -> str:
    """Folder name of a step: 200 → step-00000200."""
    return f"step-{step:08d}"


def step_number(name: str) -> int | None:
    """The step of a folder's name; None for a name that is not exactly a step's."""
    match = re.fullmatch(r"step-([0-9]{8,})", name)
    return int(match[1]) if match and step_name(int(match[1])) == name else None


def committed(run: RunFolder) -> list[Path]:
    """All complete step folders, newest first.

    Raises:
        Unreadable: the folder of checkpoints cannot be read now.
    """
    return [folder for folder in _step_folders(run) if reading(folder, lambda f=folder: _is_complete(f))]


def incomplete(run: RunFolder) -> list[Path]:
    """Step folders without a manifest, newest first: a purge took it, or somebody else made the folder."""
    complete = set(committed(run))
    return [folder for folder in _step_folders(run) if folder not in complete]


def _step_folders(run: RunFolder) -> list[Path]:
    def steps() -> dict[int, Path]:
        try:
            with os.scandir(run.checkpoints) as entries:
                found = [(step_number(entry.name), entry) for entry in entries]
                return {
                    step: Path(entry.path)
                    for step, entry in found
                    if step is not None and entry.is_dir(follow_symlinks=False)
                }
        except (FileNotFoundError, NotADirectoryError):
            return {}

    return [folder for _, folder in sorted(reading(run.checkpoints, steps).items(), reverse=True)]


def _is_complete(folder: Path) -> bool:
    try:
        (folder / MANIFEST).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def step_folder(run: RunFolder, step: int | None = None) -> Path:
    """The folder of a step, or of the newest one.

    Raises:
        InputError: the run has no such checkpoint; the sentence lists those it has.
    """
    folders = {step_number(path.name): path for path in committed(run)}
    if not folders:
        raise InputError(f"{run.path}: has no checkpoint yet.")
    if step is not None and step not in folders:
        raise InputError(
            f"{run.path}: has no checkpoint of step {step}; it has {', '.join(map(str, sorted(folders)))}."
        )
    return folders[max(folders) if step is None else step]


def leftovers(run: RunFolder) -> list[Path]:
    """What saves and removals that were cut off have left: hidden folders with a name of ours."""
    try:
        with os.scandir(run.checkpoints) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if _LEFTOVER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []
