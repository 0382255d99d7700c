"""Where a source is: the folder that a name, a path or an older run's record stands for. Torch-free.

A run records the paths of what it read. Projects are moved, runs are renamed and linked, so that a recorded
path is looked for again from the run's own folder (`recorded_folder`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from conf.errors import InputError
from conf.names import MODEL_FOLDER
from elm_megatron.run.folder import RunFolder

RUNS = Path("runs")
GGUF_FILE = "model.gguf"  # of an export run with format=gguf
TOKENIZER_FOLDER = "tokenizer"  # of an imported run: the tokenizer that came with the model
ADAPTER_FOLDER = "adapter"  # of a finetune run: its PEFT folder
ADAPTER_CONFIG = "adapter_config.json"  # of a PEFT folder
ADAPTER_FACTS = "elm.json"  # of an adapter made by this suite: its base, and how it was tuned
TEMPLATE_FILE = "template.yaml"  # of an adapter and of an exported chat model: the template it was tuned with


def split_step(source: str) -> tuple[str, int | None]:
    """A run's name or folder, and the checkpoint's step behind an @: "base@200" is ("base", 200)."""
    match = re.fullmatch(r"(.+)@(\d+)", source)
    return (match[1], int(match[2])) if match else (source, None)


def is_model(folder: Path) -> bool:
    """Whether a folder is a run, or holds a Hugging Face model."""
    return is_hf_folder(folder) or (folder / "checkpoints").is_dir() or (folder / "run.json").is_file()


def is_hf_folder(folder: Path) -> bool:
    """Whether a folder holds a Hugging Face model."""
    return (folder / "config.json").is_file()


def locate(source: str, key: str = "source") -> Path:
    """The folder of a run or of a Hugging Face model: a path, else a run's name below runs/.

    Args:
        source: with or without an @step.
        key: the setting that names it, for the refusal.

    Raises:
        InputError: there is no such folder.
    """
    for name in dict.fromkeys((source, split_step(source)[0])):
        given = Path(name).expanduser()
        for folder in (given, RUNS / name):
            if is_model(folder):
                return folder.absolute()
    name = split_step(source)[0]
    given = Path(name).expanduser()
    looked = f"neither {given} nor {RUNS / name} is a run or a Hugging Face folder"
    where = "" if given.is_absolute() else f" (looked in {Path.cwd()})"
    elsewhere = "" if RUNS.is_dir() else f"; there is no {RUNS}/ here, so give the path of the run's folder"
    raise InputError(f"{key}={source}: {looked}{where}{elsewhere}.")


def model_folder(folder: Path, source: str) -> Path | None:
    """The Hugging Face folder that a located folder is or, being an export run, holds; None for other runs.

    Raises:
        InputError: it is an export run that holds a GGUF file alone.
    """
    for candidate in (folder, folder / MODEL_FOLDER):
        if is_hf_folder(candidate):
            return candidate
    if (folder / GGUF_FILE).is_file():
        raise InputError(
            f"source={source}: holds only {GGUF_FILE}, which llama.cpp alone reads; give what it was made "
            "of, or an export with format=hf."
        )
    return None


def require_hf_folder(source: str) -> Path:
    """The Hugging Face folder of a source.

    Raises:
        InputError: the source is a run that was not exported; the sentence holds the command.
    """
    folder = model_folder(locate(source), source)
    if folder is None:
        raise InputError(
            f"source={source} is not a Hugging Face folder; make one with "
            f"`python launch/export.py source={source}`."
        )
    return folder


def export_record(folder: Path) -> dict[str, Any]:
    """What its run.json says of the export that made a Hugging Face folder; {} for one from elsewhere."""
    for place in (folder.absolute(), folder.resolve()):  # a link may be of the run's folder or of the model's
        record = RunFolder(place.parent).read().get("export") or {} if place.name == MODEL_FOLDER else {}
        if record.get("path") == MODEL_FOLDER:
            return record
    return {}


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds a JSON object.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object.")
    return value


def adapter_facts(folder: Path) -> dict[str, Any]:
    """What this suite wrote beside a PEFT adapter: its base and its template; {} for one made elsewhere."""
    path = folder / ADAPTER_FACTS
    return read_json(path) if path.is_file() else {}


def run_config(run: RunFolder) -> dict[str, Any]:
    """A run's config.yaml.

    Raises:
        InputError: there is none, or it is not a mapping.
    """
    try:
        config = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{run.config} cannot be read ({error}).") from error
    if not isinstance(config, dict):
        raise InputError(f"{run.config} does not hold a configuration.")
    return config


def recorded_folder(
    run: RunFolder, recorded: str, fits: Callable[[Path], bool], name: str | None = None
) -> Path | None:
    """The folder that a run recorded, wherever it is now; None when it is nowhere near.

    Args:
        run: the run whose record it is.
        recorded: a path or a run's name, as it was given.
        fits: whether a folder is the one meant.
        name: what a renamed run was called, if it is a run.
    """
    found = (folder for folder in _places(run, recorded, name) if fits(folder))
    return next(found, None)


def _places(run: RunFolder, recorded: str, name: str | None) -> Iterator[Path]:
    """Where a recorded folder may be: as recorded, then relative to the run, then under another name."""
    given = Path(recorded).expanduser()
    homes = dict.fromkeys([run.path, run.path.resolve()])
    if given.is_absolute():
        yield given
    for home in homes:  # runs/<name> lies two folders below the project
        yield from (home.parent.parent / given, home.parent / given) if not given.is_absolute() else ()
    yield from (given.absolute(), (RUNS / given).absolute()) if not given.is_absolute() else ()
    parts = given.parts[1:] if given.is_absolute() else given.parts
    for home in homes:
        for above in home.parents:
            yield from (above.joinpath(*parts[start:]) for start in range(len(parts) - 1))
        yield home.parent / given.name
    for folder in [*(home.parent for home in homes), RUNS.absolute()] if name else []:
        yield from (path.parent for path in sorted(folder.glob("*/config.yaml")) if _was_called(path, name))


def _was_called(config: Path, name: str | None) -> bool:
    """Whether a run was made under a name that its folder no longer has."""
    if config.parent.name == name:
        return False
    try:
        return (run_config(RunFolder(config.parent)).get("run") or {}).get("name") == name
    except (InputError, AttributeError):
        return False
