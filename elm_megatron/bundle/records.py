"""Copies of the records of runs and datasets as they may be published: no paths, hosts and job numbers."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

import yaml

from conf.names import folder_name
from data_prep.bundle.facts import Facts
from data_prep.bundle.write import PROVENANCE
from data_prep.manifest import FILE as MANIFEST
from data_prep.manifest import LINEAGE
from elm_megatron.bundle.trained import Trained
from elm_megatron.run.folder import ATTEMPTS, OWNER
from elm_megatron.run.steps import MANIFEST as CHECKPOINT_MANIFEST
from elm_megatron.run.steps import step_name
from elm_megatron.sources.lineage import Stage
from elm_megatron.sources.places import ADAPTER_FACTS, ADAPTER_FOLDER

# Of run.json: who handed the run in, from where and as which jobs; and who was given an export.
PRIVATE = ("recipients", "submit_host", "slurm_conf", "job_ids", "reason", "made_from", OWNER, ATTEMPTS)
LEARNT = ("model", "train", "tune", "sft", "dpo", "data", "parallel", "stage", "source")


def published(value: Any) -> Any:
    """A record without private keys, its absolute paths cut to their last part."""
    if isinstance(value, dict):
        return {key: published(one) for key, one in value.items() if key not in PRIVATE}
    if isinstance(value, list):
        return [published(one) for one in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return PurePath(value).name
    return value


def folder_of(number: int, name: str) -> str:
    """The folder of a step's records in the model's folder."""
    return f"{PROVENANCE}/{number:02d}-{folder_name(name)}"


def of_stage(folder: str, stage: Stage, step: int | None = None) -> dict[str, str]:
    """The records of a run by their paths in the model's folder; {} for one whose records are lost.

    Args:
        step: the checkpoint that was exported; None is the newest.
    """
    if not stage.record or not stage.run.run_json.is_file():
        return {}
    found = {f"{folder}/run.json": of_record(stage.record)}
    step = stage.run.latest_step() if step is None else step
    checkpoint = stage.run.checkpoints / step_name(step or 0) / CHECKPOINT_MANIFEST
    adapter = stage.run.path / ADAPTER_FOLDER / ADAPTER_FACTS
    for path, name in ((checkpoint, "checkpoint-manifest.json"), (adapter, "adapter.json")):
        try:
            found[f"{folder}/{name}"] = _json(published(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError):
            continue
    return found


def of_record(record: dict[str, Any]) -> str:
    """The copy of a run.json."""
    return _json(published(record))


def of_dataset(folder: str, facts: Facts) -> dict[str, str]:
    """The manifest and the lineage of a dataset, by their paths in the model's folder."""
    found = {f"{folder}/{MANIFEST}": _json(published(json.loads(facts.manifest.dumps())))}
    lineage = facts.manifest.folder / LINEAGE
    if lineage.is_file():
        found[f"{folder}/{LINEAGE}"] = lineage.read_text(encoding="utf-8")
    return found


def chain(trained: Trained) -> str:
    """The chain as YAML: each run with the settings that decide on what is learnt."""
    steps: list[dict[str, Any]] = [
        {"step": "preprocess", "dataset": facts.name, "settings": published(facts.manifest.settings)}
        for facts in trained.datasets
    ]
    for stage in trained.stages:
        settings = {key: stage.config[key] for key in LEARNT if key in stage.config}
        step = {"step": stage.record.get("verb"), "run": stage.name, "settings": published(settings)}
        steps.append({**step, "commit": stage.record.get("git_commit")})
    config = trained.config
    export = {
        "format": config.format,
        "dtype": trained.figures["dtype"],
        "checkpoint": trained.figures["step"],
    }
    steps.append({"step": "export", "settings": export})
    return yaml.safe_dump({"chain": steps}, sort_keys=False, allow_unicode=True)


def export_record(trained: Trained) -> str:
    """What the export found out, as its run.json has it."""
    figures = {key: value for key, value in trained.figures.items() if key != "key"}
    return _json(published({"verb": "export", "export": figures}))


def _json(values: Any) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
