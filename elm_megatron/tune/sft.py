"""Supervised tuning as a Task: the adapter learns the answers of instruction data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from data_prep.tokenizer import Tokenizer
from elm_megatron.tune.corpus import SftData
from elm_megatron.tune.rows import Batch, Rows
from elm_megatron.tune.tuning import Tuning


class Sft(Tuning):
    """One rank's part in a supervised tuning run."""

    def read_corpus(self, tokenizer: Tokenizer) -> SftData:
        """Instruction data, laid out in rows."""
        return SftData.read(self.config, tokenizer)

    def shape(self, dataset: Rows, ids: np.ndarray) -> tuple[int, int]:
        """Rows as wide as the longest of the batch; packed rows are one behind the other."""
        rows, width = self.settings.micro_batch_size, dataset.width(ids)
        return (1, rows * width) if dataset.packing else (rows, width)

    def forward_step(self, batches: Iterator[Batch], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        """The loss of the answers of a micro-batch."""
        batch = next(batches)
        output = model(
            batch.tokens, batch.position_ids, None, labels=batch.labels, packed_seq_params=batch.packed
        )
        return output, partial(answer_loss, batch)


def answer_loss(batch: Batch, losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """This micro-batch's share of the mean loss over the global batch's answers, and (Σ loss, Σ tokens).

    megatron-core divides by the micro-batches and averages over data-parallel ranks, which `share` undoes:
    how a batch is cut must not change what is learnt.

    Args:
        losses: nats [b, s].
    """
    total = (losses.float() * batch.weights).sum()
    return total * batch.share / batch.answers, torch.stack([total.detach(), batch.weights.sum()])
