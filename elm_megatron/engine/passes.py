"""Global batches on their way through the ranks: cut into micro-batches, run through the stages, summed up.

What the loop (`train.py`) or the validation (`validation.py`) does with the sums is their affair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.pipeline_parallel import get_forward_backward_func

from elm_megatron.engine.task import Task


class Passes:
    """One rank's part in forward and backward passes.

    Args:
        task: what is learnt; gives micro-batches and losses.
        chunks: this rank's model chunks.

    Attributes:
        data_seconds: spent on getting micro-batches, since it was last set to 0.
    """

    def __init__(self, task: Task, chunks: list[DistributedDataParallel]):
        self.chunks = chunks
        self.data_seconds = 0.0
        self._task = task
        self._forward_backward = get_forward_backward_func()

    def run(self, dataset: Any, ids: np.ndarray, forward_only: bool) -> list[float]:
        """Run one global batch through the pipeline; returns this rank's sums, Σ loss in nats, Σ tokens, ….

        Only tensor-parallel rank 0 of the last stage reports numbers, so that their sum over the world
        counts every token once.
        """
        self._task.before_batch(self.chunks, self.schedule, dataset, ids)
        results = self.schedule(dataset, ids, self._task.forward_step, forward_only)
        reports = parallel_state.get_tensor_model_parallel_rank() == 0
        if not results or not reports:
            return [0.0] * self._task.reported
        return torch.stack(results).double().sum(0).tolist()

    def schedule(
        self, dataset: Any, ids: np.ndarray, forward_step: Callable[..., Any], forward_only: bool
    ) -> list[torch.Tensor]:
        """megatron-core's schedule over one global batch.

        Args:
            ids: ids of its samples, -1 for a place to be filled; a multiple of micro_batch_size · dp.
            forward_step: takes (micro-batches, model chunk).
            forward_only: no gradients.

        Returns:
            What the forward step reports of each micro-batch, in order; nothing before the last stage.
        """
        batches = [self._timed(self._task.batches(dataset, ids)) for _ in self.chunks]
        rows, length = self._task.shape(dataset, ids)
        one = len(self.chunks) == 1
        return self._forward_backward(
            forward_step_func=forward_step,
            data_iterator=batches[0] if one else batches,
            model=self.chunks[0] if one else self.chunks,
            num_microbatches=len(ids) // (self._task.settings.micro_batch_size * self._task.dp),
            seq_length=length,
            micro_batch_size=rows,
            forward_only=forward_only,
        )

    def _timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.data_seconds += time.perf_counter() - began
            if batch is None:
                return
            yield batch
