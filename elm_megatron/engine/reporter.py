"""What a run tells about itself: announcements, metrics, run.json. Only rank 0 writes; every rank has one."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from conf.errors import InputError
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.engine import distributed, summary
from elm_megatron.engine.costs import Costs
from elm_megatron.engine.energy import EnergyMeter
from elm_megatron.engine.metrics import Metrics
from elm_megatron.engine.saver import Saver
from elm_megatron.engine.task import Task
from elm_megatron.model import device as devices
from elm_megatron.model.kernels import Kernel, record
from elm_megatron.model.kernels import notes as kernel_notes
from elm_megatron.model.kernels import summary as kernel_summary
from elm_megatron.planner import footprint
from elm_megatron.run import evaluations
from elm_megatron.run.folder import RunFolder, Superseded, append_jsonl
from elm_megatron.run.world import Outcome

RECORD_SECONDS = 10.0  # between two records of the costs in run.json


class Reporter:
    """One rank's part in telling.

    Args:
        task: what is learnt; names the facts of run.json.
        run: the run's folder.
        steps: updates of the whole run.
        energy: what this rank's device uses.
        saver: knows how long training has waited for checkpoints.
        kernels: what serves each operation.
    """

    def __init__(
        self,
        task: Task,
        run: RunFolder,
        steps: int,
        energy: EnergyMeter,
        saver: Saver,
        kernels: list[Kernel],
    ):
        self._task, self._run, self._steps, self._kernels = task, run, steps, kernels
        self._energy, self._saver = energy, saver
        self._metrics: Metrics | None = None
        self._costs: Costs | None = None
        self._kwh: float | None = None
        self._mfu: float | None = None
        self._writes = task.world.rank == 0
        self._began, self._recorded = time.time(), time.monotonic()

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Cut the logs back to where this attempt starts, announce it, and open the metrics."""
        if not self._writes:
            return
        step = checkpoint.step if checkpoint else 0
        self._costs = Costs(self._run, self._task.world, self._began)
        lost = self._run.cut_after(step or -1)  # step 0 is measured again
        evaluations.set_aside(self._run, step)
        self._announce(checkpoint, lost)
        self._run.update(
            state="running",
            step=step,
            steps=self._steps,
            **self._task.facts(step),
            world_size=self._task.world.world_size,
            parameters=self._task.config.model.parameters(),
            kernels=record(self._kernels),
            started=self._run.read().get("started", time.time()),
            **self._so_far(),
        )
        self._metrics = Metrics(self._run, self._steps, step, self._task.settings.wandb)

    def _announce(self, checkpoint: Checkpoint | None, lost: int) -> None:
        task, parallel = self._task, self._task.config.parallel
        task.log(
            f"{task.config.run.name}: {task.world.world_size} ranks (tp={parallel.tp} pp={parallel.pp} "
            f"vpp={parallel.vpp} dp={task.dp}), {self._steps} steps, {len(task.train_set):,} samples"
        )
        task.log(f"kernels: {kernel_summary(self._kernels)}")
        device = "gpu" if devices.is_gpu(task.device) else "cpu"
        for note in [*task.settings.notes(task.group), *kernel_notes(device, self._kernels)]:
            task.log(f"note: {note}")
        if checkpoint is not None:
            task.log(f"resumed from step {checkpoint.step}; {lost} logged steps after it are done again")

    def trained(self, row: dict[str, Any]) -> None:
        """Log an update, where it is one of those that are; every now and then keep run.json up with it."""
        step = row["step"]
        self._mfu = row["mfu"] or self._mfu
        if row["kwh"] is not None:
            self._kwh = row["kwh"]
        if self._metrics and (step % self._task.settings.log_every == 0 or step == self._steps):
            self._metrics.train(row)
            if time.monotonic() - self._recorded > RECORD_SECONDS:
                self.record()

    def record(self) -> None:
        """Keep the costs in run.json up with this attempt."""
        if self._costs is not None:
            self._run.update(**self._so_far())

    def _so_far(self) -> dict[str, Any]:
        self._recorded = time.monotonic()
        if self._costs is None:
            return {}
        spent = self._costs.fields(self._saver.seconds, self._kwh)
        world, cluster = self._task.world, self._task.config.cluster
        taken = footprint.recorded(
            cluster,
            world.world_size,
            footprint.cores_of(cluster, world.world_size, os.cpu_count()),
            spent["seconds"] or 0.0,
            spent["kwh"],
            self._energy.method,
            self._mfu,
        )
        return spent | {footprint.FIELD: asdict(taken)}

    def samples(self, step: int, ids: np.ndarray) -> None:
        """Log which samples an update trained on, where that is wanted."""
        if self._writes and self._task.settings.log_sample_ids:
            row = {"step": step, "ids": ids.tolist(), **self._task.origin(ids)}
            append_jsonl(self._run.samples, row)

    def measured(self, row: dict[str, Any]) -> None:
        """Log a validation."""
        if self._metrics:
            self._metrics.valid(row)

    def saving(self, step: int, tokens: int, loss: float | None) -> None:
        """Keep run.json up with a checkpoint that is being written."""
        if self._writes:
            facts = self._task.facts(step)
            self._run.update(step=step, tokens=tokens, loss=loss, **facts, **self._so_far())

    def lacks_validation(self, step: int) -> bool:
        """Whether `step` was never measured; every rank calls it."""
        rows = self._run.read_metrics(self._run.valid) if self._writes else []
        missing = self._writes and all(row["step"] != step for row in rows)
        return distributed.largest(float(missing), self._task.device) > 0

    def losses(self) -> list[float]:
        """The losses of all validations so far; for rank 0."""
        return [row["loss"] for row in self._run.read_metrics(self._run.valid)]

    def finish(self, outcome: Outcome, step: int) -> None:
        """Close the logs and sum up; every rank calls it."""
        self._kwh = distributed.total(self._energy.kwh(), self._task.device)
        self._energy.stop()
        if self._metrics is None:
            return
        self._metrics.close()
        method = self._energy.method
        if self._task.config.cluster.ear:
            method += f"; the nodes' by EAR: eacct -j {self._task.world.job_id}"
        summary.finish(self._run, outcome, step=step, energy_method=method, **self._so_far())

    def give_up(self) -> None:
        """Write down what an attempt has cost that ends by an exception; no other rank takes part."""
        with contextlib.suppress(OSError, InputError, Superseded):
            self.record()
