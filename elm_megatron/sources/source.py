"""What `source=` names: a run's name, a run's folder, or a Hugging Face folder. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from conf import typed
from conf.errors import InputError
from conf.names import MODEL_FOLDER, label
from conf.schema.model import ModelConfig
from elm_megatron.hf.architecture import model_config
from elm_megatron.run.folder import RunFolder

RUNS = Path("runs")
GGUF_FILE = "model.gguf"  # of an export run with format=gguf
TOKENIZER_FOLDER = "tokenizer"  # of an imported run: the tokenizer that came with the model


def locate(source: str, key: str = "source") -> Path:
    """The folder a source names: a path as it stands, else a run's name below runs/.

    Args:
        key: the setting that names it, for the refusal.

    Raises:
        InputError: there is no such folder.
    """
    given = Path(source).expanduser()
    for folder in (given, RUNS / source):
        if is_hf_folder(folder) or (folder / "checkpoints").is_dir() or (folder / "run.json").is_file():
            return folder.absolute()
    raise InputError(
        f"{key}={source}: neither {given} nor {RUNS / source} is a run or a Hugging Face folder."
    )


def is_hf_folder(folder: Path) -> bool:
    """Whether a folder holds a Hugging Face model."""
    return (folder / "config.json").is_file()


def hf_folder(source: str) -> Path | None:
    """The Hugging Face folder a source names or, being an export run, holds; None for other runs.

    Raises:
        InputError: there is no such folder, or it is an export run that holds a GGUF file alone.
    """
    folder = locate(source)
    for candidate in (folder, folder / MODEL_FOLDER):
        if is_hf_folder(candidate):
            return candidate
    if (folder / GGUF_FILE).is_file():
        raise InputError(
            f"source={source}: holds only {GGUF_FILE}, which llama.cpp alone reads; give what it was made "
            "of, or an export with format=hf."
        )
    return None


def side_by_side(sources: Sequence[str]) -> dict[str, Path]:
    """{name: folder} of several models; the sources as given tell those apart whose labels are the same.

    Raises:
        InputError: a source does not exist, or two of them are one folder.
    """
    folders = [hf_folder(source) or locate(source) for source in sources]
    places = [folder.resolve() for folder in folders]
    for number, place in enumerate(places):
        if place in places[:number]:
            first = sources[places.index(place)]
            raise InputError(f"source={first} and source={sources[number]} are the same model, {place}.")
    labels = [label(folder) for folder in folders]
    names = [s if labels.count(name) > 1 else name for s, name in zip(sources, labels, strict=True)]
    return dict(zip(names, folders, strict=True))


def export_record(folder: Path) -> dict[str, Any]:
    """What its run.json says of the export that made a Hugging Face folder; {} for one from elsewhere."""
    if folder.name != MODEL_FOLDER:
        return {}
    record = RunFolder(folder.absolute().parent).read().get("export") or {}
    return record if record.get("path") == MODEL_FOLDER else {}


def require_hf_folder(source: str) -> Path:
    """The Hugging Face folder of a source.

    Raises:
        InputError: the source is a run that was not exported; the sentence holds the command.
    """
    folder = hf_folder(source)
    if folder is None:
        raise InputError(
            f"source={source} is not a Hugging Face folder; make one with "
            f"`python launch/export.py source={source}`."
        )
    return folder


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


def parameters_of(source: str) -> int:
    """Parameters of the model a source names, the vocabulary's padding included.

    Raises:
        InputError: there is no such source.
    """
    folder = hf_folder(source)
    if folder is not None:
        return model_config(folder, folder.name).parameters()
    return run_model(RunFolder(locate(source))).parameters()


def base_of(run: RunFolder) -> str | None:
    """The source a finetune run stands on, without its @step; None for other runs."""
    config = run_config(run)
    if "tune" not in config or not config.get("source"):
        return None
    return without_step(str(config["source"]))


def without_step(source: str) -> str:
    """A run's name or folder without the @step behind it."""
    return re.sub(r"@\d+$", "", source)


def run_model(run: RunFolder) -> ModelConfig:
    """The model of a run.

    Raises:
        InputError: config.yaml holds none.
    """
    values = run_config(run).get("model")
    if values is None:
        raise InputError(f"{run.path} holds no model: {run.config.name} has no key model.")
    model = typed.build(ModelConfig, values, "model")
    model.check()
    return model
