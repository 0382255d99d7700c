"""What `source=` names: a run's name, a run's folder, or a Hugging Face folder. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from data_prep.errors import InputError
from elm_megatron import typed
from elm_megatron.config import ModelConfig
from elm_megatron.hf.architecture import model_config
from elm_megatron.run_folder import RunFolder

RUNS = Path("runs")
MODEL_FOLDER = "model"  # of an export run: the Hugging Face folder in it
GGUF_FILE = "model.gguf"  # of an export run with format=gguf
TOKENIZER_FOLDER = "tokenizer"  # of an imported run: the tokenizer that came with the model


def locate(source: str) -> Path:
    """The folder a source names: a path as it stands, else a run's name below runs/.

    Raises:
        InputError: there is no such folder.
    """
    given = Path(source).expanduser()
    for folder in (given, RUNS / source):
        if is_hf_folder(folder) or (folder / "checkpoints").is_dir() or (folder / "run.json").is_file():
            return folder.absolute()
    raise InputError(
        f"source={source}: neither {given} nor {RUNS / source} is a run or a Hugging Face folder."
    )


def is_hf_folder(folder: Path) -> bool:
    """Whether a folder holds a Hugging Face model."""
    return (folder / "config.json").is_file()


def hf_folder(source: str) -> Path | None:
    """The Hugging Face folder a source names or, being an export run, holds; None for other runs.

    Raises:
        InputError: there is no such folder.
    """
    folder = locate(source)
    for candidate in (folder, folder / MODEL_FOLDER):
        if is_hf_folder(candidate):
            return candidate
    return None


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
    return str(config["source"]).partition("@")[0]


def run_model(run: RunFolder) -> ModelConfig:
    """The model of a run.

    Raises:
        InputError: config.yaml holds none.
    """
    model = typed.build(ModelConfig, run_config(run).get("model"), "model")
    model.check()
    return model
