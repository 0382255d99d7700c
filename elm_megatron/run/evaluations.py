"""Which checkpoints of a run are evaluated, and which still have to be. Torch-free.

    evaluations/step-00000200.json      what was measured; never measured again
    evaluations/step-00000200.failed    why it could not be measured
    evaluations/step-00000200.running   who measures it now
    evaluations/lost/                   of steps that a resumed run trains again

There is no list of what is to be done: a committed checkpoint without a result or a failure is due. Nothing
is lost by a kill therefore, at whatever moment it comes.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep import files
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import committed, step_name, step_number

FOLDER, LOST = "evaluations", "lost"
RESULT, FAILED, RUNNING, JOB = ".json", ".failed", ".running", ".job"
MOST_WAITING = 10  # checkpoints that retention leaves to those who measure, the newest


def folder(run: RunFolder) -> Path:
    """The folder of a run's evaluations."""
    return run.path / FOLDER


def place(run: RunFolder, step: int, kind: str = RESULT) -> Path:
    """A file about the evaluation of a step."""
    return folder(run) / f"{step_name(step)}{kind}"


def due(run: RunFolder) -> list[int]:
    """Steps whose checkpoints are there and were not measured, oldest first."""
    steps = (step_number(path.name) or 0 for path in reversed(committed(run)))
    return [step for step in steps if not any(place(run, step, kind).exists() for kind in (RESULT, FAILED))]


def protected(run: RunFolder) -> set[int]:
    """Steps whose checkpoints must stay: they are being measured, or are among the newest that wait."""
    waiting = due(run)
    return {step for step in waiting if place(run, step, RUNNING).exists()} | set(waiting[-MOST_WAITING:])


@contextlib.contextmanager
def claimed(run: RunFolder, step: int) -> Iterator[None]:
    """Mark a step as being measured; a mark that a killed process leaves is taken over by the next."""
    folder(run).mkdir(mode=0o700, exist_ok=True)
    mark = place(run, step, RUNNING)
    files.write(mark, f"process {os.getpid()} on {socket.gethostname()} since {time.time():.0f}\n")
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def results(run: RunFolder) -> list[dict[str, Any]]:
    """What was measured so far, by step; a file that is no result is left out."""
    found = []
    for step, path in _files(run, RESULT).items():
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(row, dict) and row.get("step") == step:
            found.append({"perplexity": {}, "tasks": {}, **row})
    return found


def _files(run: RunFolder, kind: str) -> dict[int, Path]:
    """By step, the files of a kind; a copy under another name is somebody's own."""
    try:
        paths = [path for path in folder(run).iterdir() if path.suffix == kind]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = {step_number(path.stem): path for path in paths}
    return {
        step: path for step, path in sorted(found.items(), key=lambda item: item[0] or 0) if step is not None
    }


def scalars(result: dict[str, Any]) -> dict[str, float]:
    """The curves of evaluations and this step's figure in each: {"bits per byte/language nl": 1.2}."""
    found = {}
    for group, figures in result["perplexity"].items():
        found[f"perplexity/{group}"] = figures["perplexity"]
        found[f"bits per byte/{group}"] = figures["bits_per_byte"]
    for task, figures in result["tasks"].items():
        if figures.get("bits_per_byte") is not None:
            found[f"bits per byte of answers/{task}"] = figures["bits_per_byte"]
        if figures.get("value") is not None:
            found[f"tasks/{task}, {figures['metric']}"] = figures["value"]
    return found


def failures(run: RunFolder) -> dict[int, str]:
    """Why steps could not be measured."""
    return {step: path.read_text(encoding="utf-8").strip() for step, path in _files(run, FAILED).items()}


def try_again(run: RunFolder) -> None:
    """Forget failures, so that those steps are due again."""
    for path in _files(run, FAILED).values():
        path.unlink(missing_ok=True)


def set_aside(run: RunFolder, after: int) -> None:
    """Take away what was measured of later steps than `after`, which are trained again."""
    for kind in (RESULT, FAILED, RUNNING, JOB):
        for step, path in _files(run, kind).items():
            if step > after:
                lost = folder(run) / LOST
                lost.mkdir(mode=0o700, exist_ok=True)
                path.replace(lost / f"{path.stem}.{time.time_ns()}{path.suffix}")
