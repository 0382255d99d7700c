"""A run with schedule=wsd that is lengthened after its decay began: where it goes on from. Torch-free.

After the decay the rate is near 0. Going on from there with more steps would raise it to the full rate at
once, without a word. The run goes on from the last checkpoint before the decay instead.
"""

from __future__ import annotations

import json
from pathlib import Path

from conf.errors import InputError
from data_prep import files
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import MANIFEST, committed, step_number

ASIDE = "decayed-"  # put before the names of step folders that a lengthened run does not go on from


def last_before_decay(run: RunFolder, steps: int, decay_steps: int, group: str) -> Path | None:
    """The step folder that a lengthened run goes on from; None where its newest one will do.

    Args:
        steps: updates asked for now.
        decay_steps: updates of the decay at the end.
        group: the prefix of the loop's keys.

    Raises:
        InputError: the decay began, and no checkpoint of a step before it is left.
    """
    folders = committed(run)
    if not folders:
        return None
    planned = _planned_steps(folders[0]) or run.read().get("steps")
    stable = (planned or steps) - decay_steps
    if planned is None or steps <= planned or (step_number(folders[0].name) or 0) <= stable:
        return None
    older = [folder for folder in folders if (step_number(folder.name) or 0) <= stable]
    if older:
        return older[0]
    raise InputError(
        f"{group}.steps={steps}: {run.path} began its decay after step {stable} of {planned}, and it has no "
        f"checkpoint of step {stable} or before, so the rate would jump back from its end. Begin a new run "
        f"with {group}.init_from=<run>@<step>, or give another run.name."
    )


def set_aside_decayed(run: RunFolder, good: Path) -> list[str]:
    """Rename the step folders after `good`, so that nobody goes on from them; returns their new names."""
    files.write(run.latest, f"{good.name}\n")
    names = []
    for folder in committed(run):
        if folder.name > good.name:
            aside = folder.with_name(f"{ASIDE}{folder.name}")
            number = 2
            while aside.exists():
                aside, number = folder.with_name(f"{ASIDE}{folder.name}-{number}"), number + 1
            folder.rename(aside)
            names.append(aside.name)
    return names


def _planned_steps(folder: Path) -> int | None:
    """The run's length when a checkpoint was written; None for a checkpoint of an earlier version."""
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("steps")
    except (OSError, ValueError, AttributeError):
        return None  # loading says what is wrong with it
