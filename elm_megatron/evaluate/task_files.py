"""Tasks by name: those of this suite, task files by path, EuroEval's Dutch data sets, and lm-eval's own.

The first two have their data beside the file. The others read theirs from `eval.task_data=<folder>`. There, a
data set of the Hugging Face hub is a folder of its name, `<folder>/<owner>/<name>/`, with .jsonl, .json or
.parquet files whose names hold the split. Nothing is ever fetched; the refusal names the command that does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from conf.errors import InputError

FOLDER = Path(__file__).parent / "tasks"
READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
SPLITS = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
EXTRA = "pip install -e .[eval]"


def load(name: str, task_data: str | None = None) -> dict[str, Any]:
    """A task as the mapping lm-eval takes, its data in local files.

    Args:
        name: of a task, or the path of a task file.
        task_data: the folder of data sets, `eval.task_data`.

    Raises:
        InputError: there is no such task, or its data are missing.
    """
    for path in (FOLDER / f"{name}.yaml", FOLDER / "euroeval" / f"{name}.yaml", Path(name).expanduser()):
        if path.is_file():
            task = _read(path, name)
            if path.parent.name == "euroeval" and path.parent.parent == FOLDER:
                return _with_hub_data(task, name, task_data)
            return _with_own_data(task, path, name)
    return _with_hub_data(_of_library(name), name, task_data)


def known() -> list[str]:
    """The names of the tasks that this suite has files of."""
    return sorted(path.stem for path in FOLDER.rglob("*.yaml"))


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        task = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"tasks={name}: {path} is not readable as YAML ({reason}).") from error
    if not isinstance(task, dict) or not isinstance(task.get("task"), str):
        raise InputError(f"tasks={name}: {path} is no task file, it has no key task.")
    return task


def _with_own_data(task: dict[str, Any], path: Path, name: str) -> dict[str, Any]:
    """The task with the paths of its data made absolute: a file, a list of files, or these by split."""
    kwargs = task.get("dataset_kwargs")
    files = kwargs.get("data_files") if isinstance(kwargs, dict) else None
    if not files:
        raise InputError(
            f"tasks={name}: not a task with local data (dataset_kwargs.data_files); allowed are "
            f"{', '.join(known())}, names of lm-eval's tasks, or a path."
        )

    def absolute(value: Any) -> Any:
        if isinstance(value, dict):
            return {split: absolute(one) for split, one in value.items()}
        if isinstance(value, list):
            return [absolute(one) for one in value]
        file = (path.parent / str(value)).absolute()
        if not file.is_file():
            raise InputError(f"{path}: {file} does not exist.")
        return str(file)

    return {**task, "dataset_kwargs": {**kwargs, "data_files": absolute(files)}}


def _of_library(name: str) -> dict[str, Any]:
    """The configuration of one of lm-eval's own tasks."""
    unknown = InputError(
        f"tasks={name}: no task of that name; allowed are {', '.join(known())}, names of lm-eval's tasks "
        f"(with {EXTRA}), or the path of a task file."
    )
    try:
        from lm_eval.tasks import TaskManager
        from lm_eval.tasks._yaml_loader import load_yaml
    except ImportError as error:
        raise unknown from error
    entry = TaskManager().task_index.get(name)
    if entry is None or getattr(entry, "yaml_path", None) is None:
        raise unknown
    task = load_yaml(entry.yaml_path)
    if not isinstance(task.get("task"), str) or "dataset_path" not in task:
        raise InputError(f"tasks={name}: is a group of tasks; give the tasks by name.")
    return task


def _with_hub_data(task: dict[str, Any], name: str, task_data: str | None) -> dict[str, Any]:
    """The task with a data set of the hub read from its folder below `eval.task_data`."""
    data_set, config = str(task["dataset_path"]), task.get("dataset_name")
    target = f"{task_data or '<folder>'}/{data_set}"
    fetch = f"fetch it with: hf download {data_set} --repo-type dataset --local-dir {target}"
    if task_data is None:
        raise InputError(
            f"tasks={name}: needs the data set {data_set}; give eval.task_data=<folder>, and {fetch} (tasks "
            f"that have their data are {', '.join(sorted(path.stem for path in FOLDER.glob('*.yaml')))})"
        )
    folder = Path(task_data).expanduser().absolute() / data_set
    files = data_files(folder, config)
    wanted = [task.get(key) for key in ("test_split", "validation_split") if task.get(key)]
    if not any(split in files for split in map(_split_name, wanted)):
        held = f"holds no file of the split {' or '.join(map(str, wanted))}" + (
            f" of {config}" if config else ""
        )
        raise InputError(f"tasks={name}: {folder} {held}; {fetch}")
    readers = {READERS[Path(file).suffix] for found in files.values() for file in found}
    if len(readers) > 1:
        raise InputError(f"tasks={name}: {folder} holds JSON and Parquet files; keep those of one kind.")
    renamed = {
        key: _split_name(task[key]) if _split_name(task[key]) in files else None
        for key in ("training_split", "validation_split", "test_split", "fewshot_split")
        if task.get(key)
    }
    return {
        **task,
        **renamed,
        "dataset_path": readers.pop(),
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
    }


def _split_name(split: Any) -> str:
    return next((name for name, words in SPLITS.items() if str(split) in words), str(split))


def data_files(folder: Path, config: str | None) -> dict[str, list[str]]:
    """{split: files} of a data set's folder.

    Args:
        folder: of the data set.
        config: its part, such as "nl"; where names of files or folders hold it, only those are taken.
    """
    found = [path for path in sorted(folder.rglob("*")) if path.suffix in READERS and path.is_file()]
    if config:
        words = {path: _words(path.relative_to(folder)) for path in found}
        mine = [path for path in found if config.casefold() in words[path]]
        found = mine or [path for path in found if path.parent == folder]
    splits: dict[str, list[str]] = {}
    for path in found:
        words = _words(path.relative_to(folder))
        for split, spellings in SPLITS.items():
            if words & set(spellings):
                splits.setdefault(split, []).append(str(path))
                break
    return splits


def _words(path: Path) -> set[str]:
    """The words in the names of a file and its folders, and the names themselves."""
    names = [*path.parts[:-1], path.stem]
    return {word for name in names for word in (name.casefold(), *re.split(r"[^a-z0-9]+", name.casefold()))}
