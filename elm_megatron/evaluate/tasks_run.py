"""Runs lm-eval's tasks on an exported folder, offline, with data that lie beside the task files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from conf.errors import InputError

FOLDER = Path(__file__).parent / "tasks"


def load(name: str) -> dict[str, Any]:
    """A task file as the mapping lm-eval takes, the paths of its data made absolute.

    Raises:
        InputError: there is no such task, or its data are missing.
    """
    path = FOLDER / f"{name}.yaml"
    path = path if path.is_file() else Path(name).expanduser()
    try:
        task = yaml.safe_load(path.read_text(encoding="utf-8"))
        files = task["dataset_kwargs"]["data_files"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.yaml")))
        raise InputError(
            f"tasks={name}: not a task with local data; allowed are {known}, or a path."
        ) from error
    for split, file in files.items():
        data = (path.parent / file).absolute()
        if not data.is_file():
            raise InputError(f"{path}: {data} does not exist.")
        files[split] = str(data)
    return task


def run(
    model: Any, folder: Path, tasks: list[str], limit: int | None, batch_size: int, cache: Path
) -> dict[str, dict[str, Any]]:
    """{task: {"accuracy", "error", "items"}}; accuracy by the likelihood per byte of each answer.

    Args:
        model: a causal language model of transformers.
        folder: holds its tokenizer.
        limit: items per task, None is all.
        cache: folder for the tables lm-eval makes of the data.

    Raises:
        InputError: lm-eval is not installed, or a task is unknown.
    """
    configs = [load(name) for name in tasks]
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ[variable] = "1"
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise InputError("tasks: lm-eval is not installed; pip install -e .[eval], or tasks=[].") from error
    from transformers import AutoTokenizer

    for config in configs:
        config["dataset_kwargs"]["cache_dir"] = str(cache)
    wrapped = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=batch_size)
    found = lm_eval.simple_evaluate(
        model=wrapped, tasks=configs, limit=limit, bootstrap_iters=0, log_samples=False, verbosity="ERROR"
    )
    return {
        name: {
            "accuracy": result["acc_norm,none"],
            "error": _standard_error(result["acc_norm,none"], found["n-samples"][name]["effective"]),
            "items": found["n-samples"][name]["effective"],
        }
        for name, result in found["results"].items()
    }


def _standard_error(share: float, n: int) -> float:
    """Of a share over n independent items."""
    return (share * (1 - share) / n) ** 0.5
