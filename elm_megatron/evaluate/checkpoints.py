"""Evaluates one checkpoint of a run that may still train: <run>/evaluations/step-<N>.json.

    python -m slurm.jobs.evaluations <run folder> <step>       (started for every checkpoint, see there)

One process, whatever the layout the run trains in. The settings are those of the group `eval` of the run's
config.yaml. What is measured goes to the file, to TensorBoard (tensorboard/evaluations) and to
the run's page.
"""

from __future__ import annotations

import json
import time
from typing import Any

from conf import typed
from conf.errors import InputError
from conf.plain import plain
from conf.schema.cluster import ClusterConfig
from conf.schema.evaluation import CheckpointEvaluation
from conf.schema.hf import DatasetChoice, EvalConfig, TaskData
from conf.schema.run import RunConfig
from data_prep import files
from data_prep.manifest import Manifest
from elm_megatron.card import run_page
from elm_megatron.evaluate import evaluate, perplexity, tasks_run
from elm_megatron.model import device as devices
from elm_megatron.run import evaluations
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import step_folder
from elm_megatron.sources.places import run_config
from elm_megatron.sources.source import ModelSource, at_checkpoint

TENSORBOARD = "evaluations"  # below tensorboard/, where TensorBoard shows it as a run of its own


def evaluate_step(run: RunFolder, step: int, device: str = "cpu") -> None:
    """Measure a checkpoint unless that was done, and write what was found, or why nothing was.

    Args:
        run: its folder; its config.yaml has the settings.
        step: updates done.
        device: cpu or gpu.

    Raises:
        InputError: it cannot be measured; the reason is in evaluations/step-<N>.failed.
    """
    if evaluations.place(run, step).exists():
        return
    with evaluations.claimed(run, step):
        try:
            result = measure_step(run, step, device)
        except Exception as error:
            if not _is_there(run, step):
                print(f"the checkpoint of step {step} was removed before its turn", flush=True)
                return
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            files.write(evaluations.place(run, step, evaluations.FAILED), reason + "\n")
            raise
        files.write(evaluations.place(run, step), json.dumps(result, indent=1) + "\n")
    to_tensorboard(run, result)
    run_page.write(run.path)


def measure_step(run: RunFolder, step: int, device: str) -> dict[str, Any]:
    """The figures of a checkpoint: perplexity and bits per byte by group, and what tasks measured.

    Raises:
        InputError: there is no such checkpoint, or nothing to measure it on.
    """
    values, began = run_config(run), time.time()
    settings = typed.build(CheckpointEvaluation, values.get("eval") or {}, "eval")
    source = at_checkpoint(run, step)
    tasks = _tasks(settings)
    config = EvalConfig(
        run=RunConfig(run.path.name, str(run.path)),
        source=source.name,
        max_documents=settings.max_documents,
        tasks=tasks,
        limit=settings.limit,
        eval=TaskData(settings.task_data, decontaminate=False),
        data=DatasetChoice((values.get("data") or {}).get("dir")),
        cluster=ClusterConfig(device=device),
    )
    manifest = _dataset(config, source)
    works = perplexity.documents(manifest, "valid", config.max_documents) if manifest else []
    found = evaluate.measure(config, source, manifest, works, tasks, evaluations.folder(run) / ".cache")
    for figures in found["tasks"].values():
        figures.pop("samples")
    return {
        "schema": 1,
        "step": step,
        "time": began,
        "seconds": time.time() - began,
        "device": devices.named(device).type,
        "manifest_sha256": manifest.sha256 if manifest else None,
        "settings": plain(settings),
        **found,
    }


def _is_there(run: RunFolder, step: int) -> bool:
    try:
        step_folder(run, step)
    except InputError:
        return False
    return True


def _tasks(settings: CheckpointEvaluation) -> list[str]:
    if settings.tasks and not tasks_run.is_installed():
        print(tasks_run.missing_extra(settings.tasks), flush=True)
        return []
    return settings.tasks


def _dataset(config: EvalConfig, source: ModelSource) -> Manifest | None:
    """The documents to measure on; None for the adapter of a model from elsewhere, which has none.

    Raises:
        InputError: there are none, and there are no tasks either.
    """
    try:
        return evaluate.dataset(config, source)
    except InputError:
        if not config.tasks:
            raise
        return None


def to_tensorboard(run: RunFolder, result: dict[str, Any]) -> None:
    """Add a result to TensorBoard, in an event file of its own."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.tensorboard / TENSORBOARD)) as board:
        for name, value in evaluations.scalars(result).items():
            board.add_scalar(name, value, result["step"], walltime=result["time"])
