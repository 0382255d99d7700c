"""Direct preference optimisation (Rafailov et al. 2023): the adapter learns from pairs of answers.

The reference is the frozen base, the same model with its adapter switched off, so it costs no second copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from conf.schema.tune import FinetuneConfig
from data_prep.tokenizer import Tokenizer
from elm_megatron.engine.task import Schedule
from elm_megatron.run.world import World
from elm_megatron.tune import lora
from elm_megatron.tune.pairs import PairBatch, PairData, Pairs
from elm_megatron.tune.tuning import Tuning


class Dpo(Tuning):
    """One rank's part in a preference tuning run."""

    reported = 4  # Σ loss, pairs, Σ margin, pairs whose chosen answer is ahead

    def __init__(self, config: FinetuneConfig, world: World, device: torch.device):
        super().__init__(config, world, device)
        self._references: Iterator[torch.Tensor] = iter(())

    def read_corpus(self, tokenizer: Tokenizer) -> PairData:
        """Preference pairs."""
        return PairData.read(self.config, tokenizer)

    def shape(self, dataset: Pairs, ids: np.ndarray) -> tuple[int, int]:
        """Two rows a pair, as wide as the longest of the batch."""
        return 2 * self.settings.micro_batch_size, dataset.width(ids)

    @torch.no_grad()
    def before_batch(self, chunks: list[Any], schedule: Schedule, dataset: Pairs, ids: np.ndarray) -> None:
        """Take the base's losses of each micro-batch, [2b, s]; none before the last stage."""
        with lora.switched_off(chunks):
            self._references = iter(schedule(dataset, ids, _reference_step, forward_only=True))

    def forward_step(self, batches: Iterator[PairBatch], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        """The loss of a micro-batch of pairs."""
        batch = next(batches)
        output = model(batch.tokens, batch.position_ids, None, labels=batch.labels)
        dpo = self.config.dpo
        return output, lambda losses: preference_loss(
            log_ratios(losses, next(self._references), batch.weights), batch, dpo.beta, dpo.label_smoothing
        )

    def validation_columns(self, sums: list[float], count: float) -> dict[str, float]:
        """How far chosen answers are ahead on average, and what share of them is."""
        return {"margin": sums[0] / count, "accuracy": sums[1] / count}


def _reference_step(batches: Iterator[PairBatch], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
    batch = next(batches)
    output = model(batch.tokens, batch.position_ids, None, labels=batch.labels)
    return output, _report_losses


def _report_losses(losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return losses.sum(), losses.float()


def log_ratios(losses: torch.Tensor, reference: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """log π − log π_ref of each row's answer, nats, [rows].

    Token by token, since the sums are hundreds of nats, of which fp32 keeps four decimals, and their
    difference is small.

    Args:
        losses, reference: −log π and −log π_ref per token, [rows, s].
        weights: 1 for the tokens of the answer, fp32 [rows, s].
    """
    return ((reference - losses.float()) * weights).sum(-1)


def preference_loss(
    ratios: torch.Tensor, batch: PairBatch, beta: float, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """This micro-batch's share of the mean loss, and (Σ loss, pairs, Σ margin, pairs won).

    margin = β·((log π − log π_ref)(chosen) − (log π − log π_ref)(rejected)); the loss is
    −(1 − ε)·log σ(margin) − ε·log σ(−margin).

    Args:
        ratios: log π − log π_ref, [2b], the chosen answers first.
        batch: the pairs.
        beta: strength of the pull towards the reference.
        smoothing: ε, the share of preferences taken to be wrong.
    """
    chosen, rejected = ratios.chunk(2)
    margin = beta * (chosen - rejected)
    logsigmoid = torch.nn.functional.logsigmoid
    each = -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)
    total = (each * batch.real).sum()
    won = ((margin > 0) * batch.real).sum()
    report = [total.detach(), batch.real.sum(), (margin * batch.real).sum().detach(), won]
    return total * batch.share / batch.pairs, torch.stack(report)
