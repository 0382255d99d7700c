"""Global batches on their way through the ranks: cut into micro-batches, run through the stages, summed up.

What the loop (`train.py`) does with the sums is none of its business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.pipeline_parallel import get_forward_backward_func

from conf.schema.train import TrainConfig
from elm_megatron.engine import data
from elm_megatron.engine.losses import mean_loss
from elm_megatron.engine.signals import Signals


class Passes:
    """One rank's part in forward and backward passes; a Trainer is one.

    Attributes:
        chunks: this rank's model chunks.
        settings: the group of keys that governs the loop.
        vpp_group: micro-batches that interleaved stages take at a time.
        dp, dp_rank: data-parallel ranks, and which of them this is.
        keep_apart: the EOS at which one document ends and another begins that may not see it; None is off.
    """

    reported = 2  # sums a forward step reports
    loss: Callable[..., Any] = staticmethod(mean_loss)  # of a micro-batch
    chunks: list[DistributedDataParallel]
    settings: TrainConfig
    signals: Signals
    device: torch.device
    vpp_group: int
    dp: int
    dp_rank: int
    keep_apart: int | None

    def __init__(self) -> None:
        self.forward_backward = get_forward_backward_func()
        self.data_seconds = 0.0  # spent on getting micro-batches, since it was last set to 0

    def _forward_step(self, batches: Iterator[Any], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        """Seam: one micro-batch through this stage, in the form megatron-core's schedules ask for."""
        batch = next(batches)
        output = model(
            batch.tokens,
            batch.position_ids,
            None,
            labels=batch.labels,
            loss_mask=batch.loss_mask,
            packed_seq_params=batch.packed,
        )
        return output, partial(self.loss, batch.loss_mask)

    def _batches(self, dataset: Any, ids: np.ndarray) -> Iterator[Any]:
        """Seam: this rank's micro-batches of a global batch."""
        size = self.settings.micro_batch_size
        return data.micro_batches(dataset, ids, size, self.dp_rank, self.dp, self.device, self.keep_apart)

    def _shape(self, dataset: Any, ids: np.ndarray) -> tuple[int, int]:
        """Seam: (rows, tokens a row) of every micro-batch of a global batch; stages exchange such tensors."""
        rows, length = self.settings.micro_batch_size, self.settings.seq_length
        return (rows, length) if self.keep_apart is None else (1, rows * length)

    def _run_batches(self, dataset: Any, ids: np.ndarray, forward_only: bool) -> list[float]:
        """Run one global batch through the pipeline; returns this rank's sums, Σ loss in nats, Σ tokens, ….

        Only tensor-parallel rank 0 of the last stage reports numbers, so that their sum over the world
        counts every token once.
        """
        batches = [self._timed(self._batches(dataset, ids)) for _ in self.chunks]
        rows, length = self._shape(dataset, ids)
        results = self.forward_backward(
            forward_step_func=self._forward_step,
            data_iterator=batches if len(batches) > 1 else batches[0],
            model=self.chunks if len(self.chunks) > 1 else self.chunks[0],
            num_microbatches=len(ids) // (self.settings.micro_batch_size * self.dp),
            seq_length=length,
            micro_batch_size=rows,
            forward_only=forward_only,
        )
        reports = parallel_state.get_tensor_model_parallel_rank() == 0
        if not results or not reports:
            return [0.0] * self.reported
        return torch.stack(results).double().sum(0).tolist()

    def _timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.data_seconds += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def _agree(self, sums: list[float]) -> tuple[list[float], int]:
        """The sums over all ranks, and the strongest request any rank has received."""
        codes = [float(self.signals.code == code) for code in (1, 2)]
        shared = torch.tensor([*sums, *codes], dtype=torch.float64, device=self.device)
        dist.all_reduce(shared)
        *sums, requeue, stop = shared.tolist()
        return sums, 2 if stop else int(requeue > 0)

    def _sums_over(self, dataset: Any) -> list[float]:
        """The sums a forward step reports, over a whole validation set (or `eval_batches` of it)."""
        train = self.settings
        ids = data.padded_ids(len(dataset), train.micro_batch_size * self.dp * self.vpp_group)
        if train.eval_batches is not None:
            ids = ids[: train.eval_batches * train.global_batch_size]
        return self._agree(self._run_batches(dataset, ids, forward_only=True))[0]
