"""What `source=` names when tuning: the base to stand on, and an adapter to start from. Torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from conf.errors import InputError
from conf.schema.model import ModelConfig
from conf.schema.tune import FinetuneConfig
from elm_megatron.hf import architecture
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.source import hf_folder, locate, run_config, run_model

ADAPTER_FOLDER = "adapter"  # of a finetune run: its PEFT folder


@dataclass(frozen=True)
class Source:
    """A base model's place.

    Attributes:
        folder: of the run or the Hugging Face model.
        is_run: which of the two.
        model: its sizes.
        step: checkpoint of a run; None is the newest.
        manifest_sha256: of the dataset the run was trained on, where known.
        adapter: PEFT folder of the finetune run that was named, or None.
    """

    folder: Path
    is_run: bool
    model: ModelConfig
    step: int | None = None
    manifest_sha256: str | None = None
    adapter: Path | None = None


def resolve(source: str) -> Source:
    """Find a source; a finetune run stands for its base, with its adapter.

    Raises:
        InputError: it is neither a run nor a Hugging Face folder, or a finetune run without an adapter yet.
    """
    match = re.fullmatch(r"(.+)@(\d+)", source)
    name, step = (match[1], int(match[2])) if match else (source, None)
    try:
        folder = locate(name)
    except InputError as error:
        raise InputError(
            f"{error} Make one with: python launch/pretrain.py run.name={Path(name).name}"
        ) from error
    exported = hf_folder(name)
    if exported is not None:
        return Source(exported, False, architecture.model_config(exported, exported.name))
    run = RunFolder(folder)
    config = run_config(run)
    if "tune" in config:
        return replace(resolve(config["source"]), adapter=_adapter_of(folder))
    return Source(folder, True, run_model(run), step, run.read().get("manifest_sha256"))


def _adapter_of(folder: Path) -> Path:
    adapter = folder / ADAPTER_FOLDER
    if not (adapter / "adapter_config.json").is_file():
        raise InputError(
            f"source={folder.name}: the finetune run is not finished, it holds no {adapter.name}/."
        )
    return adapter


def adopt(config: FinetuneConfig) -> Source:
    """Put the source's own model into the configuration and check it again.

    Raises:
        InputError: no such source, or the layout does not fit its model.
    """
    source = resolve(config.source)
    config.model = source.model
    config.check()
    return source
