"""The loss on the validation split: what is measured, and when it is due.

A validation looks at the signals after every few micro-batches and breaks off when a rank has been requested
to leave. The checkpoint of the step is then saved first, and the next attempt makes the validation good.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from elm_megatron.engine import data, stratified
from elm_megatron.engine.passes import Passes
from elm_megatron.engine.signals import Signals
from elm_megatron.engine.task import Task

PIPELINE_FILLS = 4  # micro-batches per stage in a row: a pipeline idles between two looks at the signals


class Validator:
    """One rank's part in measuring.

    Args:
        task: gives the datasets by language, and the settings.
        passes: runs batches through the model.
        signals: this rank's requests to leave.
    """

    def __init__(self, task: Task, passes: Passes, signals: Signals):
        self._task, self._passes, self._signals = task, passes, signals
        parallel = task.config.parallel
        # Interleaved stages take their micro-batches in groups of as many as there are stages.
        self._unit = task.settings.micro_batch_size * task.dp * (parallel.pp if parallel.vpp > 1 else 1)
        fills = 1 if parallel.pp == 1 else PIPELINE_FILLS * (1 if parallel.vpp > 1 else parallel.pp)
        self._at_once = self._unit * fills
        self._ids = self._chosen()

    def is_due(self, step: int, steps: int) -> bool:
        """Whether a run of `steps` updates is measured after `step` of them."""
        return step % self._task.settings.eval_every == 0 or step == steps

    @torch.no_grad()
    def measure(self, step: int, seconds: float = 0.0) -> dict[str, Any] | None:
        """Mean loss per token in nats, also per language, as a row of valid.jsonl; every rank calls it.

        Args:
            step: updates done.
            seconds: how long it may take when a rank has been requested to leave.

        Returns:
            The row, or None when it was broken off.
        """
        for chunk in self._passes.chunks:
            chunk.eval()
        try:
            sums = self._sums(seconds)
        finally:
            for chunk in self._passes.chunks:
                chunk.train()
        return sums and self._row(step, sums)

    def _sums(self, seconds: float) -> dict[str, list[float]] | None:
        """The sums that a forward step reports, over all ranks, by language."""
        task, began = self._task, time.monotonic()
        mine = {name: [0.0] * task.reported for name in task.valid_sets}
        for name, ids in self._batches():
            part = self._passes.run(task.valid_sets[name], ids, forward_only=True)
            mine[name] = [a + b for a, b in zip(mine[name], part, strict=True)]
            (spent,), request = self._signals.agree([time.monotonic() - began], task.device)
            if request is not None and spent / dist.get_world_size() >= seconds:
                return None
        flat, _ = self._signals.agree([number for part in mine.values() for number in part], task.device)
        rows = np.array(flat).reshape(len(mine), task.reported).tolist()
        return dict(zip(mine, rows, strict=True))

    def _batches(self) -> Iterator[tuple[str, np.ndarray]]:
        """(language, ids) of what runs between two looks at the signals; an id of -1 fills a batch."""
        for name, chosen in self._ids.items():
            ids = data.padded(chosen, self._unit)
            for start in range(0, len(ids), self._at_once):
                yield name, ids[start : start + self._at_once]

    def _chosen(self) -> dict[str, np.ndarray]:
        """Ids of the samples that are measured, by language: all, or a sample of `eval_batches`."""
        settings = self._task.settings
        sizes = {name: len(dataset) for name, dataset in self._task.valid_sets.items()}
        if settings.eval_batches is None:
            return {name: np.arange(size) for name, size in sizes.items()}
        return stratified.drawn(settings.eval_batches * settings.global_batch_size, sizes, settings.seed)

    def _row(self, step: int, sums: dict[str, list[float]]) -> dict[str, Any]:
        """The row; a language counts by its share of the whole split, also where a sample was measured."""
        targets = self._task.valid_targets()
        scaled = [
            [number * targets.get(name, part[1]) / part[1] for number in part] for name, part in sums.items()
        ]
        total, count, *more = (sum(column) for column in zip(*scaled, strict=True))
        loss = total / count
        perplexity = math.exp(min(loss, 700.0))
        row = {"step": step, "loss": loss, "perplexity": perplexity, "time": time.time()}
        row |= {f"loss_{name}": part[0] / part[1] for name, part in sums.items() if name}
        row |= {f"weight_{name}": n / sum(targets.values()) for name, n in targets.items()}
        return row | self._task.validation_columns(more, count)
