"""Direct preference optimisation (Rafailov et al. 2023): the adapter learns from pairs of answers.

The reference is the frozen base, the same model with its adapter switched off, so it costs no second copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
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
        """Take the base's log-probabilities of each micro-batch, [2b]; none before the last stage."""
        with lora.switched_off(chunks):
            self._references = iter(schedule(dataset, ids, _reference_step, forward_only=True))

    def forward_step(self, batches: Iterator[PairBatch], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        """The loss of a micro-batch of pairs."""
        batch = next(batches)
        output = model(batch.tokens, batch.position_ids, None, labels=batch.labels)
        dpo = self.config.dpo
        return output, lambda losses: preference_loss(
            log_probs(losses, batch.weights), next(self._references), batch, dpo.beta, dpo.label_smoothing
        )

    def validation_columns(self, sums: list[float], count: float) -> dict[str, float]:
        """How far chosen answers are ahead on average, and what share of them is."""
        return {"margin": sums[0] / count, "accuracy": sums[1] / count}


def _reference_step(batches: Iterator[PairBatch], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
    batch = next(batches)
    output = model(batch.tokens, batch.position_ids, None, labels=batch.labels)
    return output, partial(_report_log_probs, batch.weights)


def _report_log_probs(weights: torch.Tensor, losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = log_probs(losses, weights)
    return found.sum(), found


def log_probs(losses: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Log-probability of each row's answer, nats, [rows], from per-token losses [rows, s]."""
    return -(losses.float() * weights).sum(-1)


def preference_loss(
    policy: torch.Tensor, reference: torch.Tensor, batch: PairBatch, beta: float, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """This micro-batch's share of the mean loss, and (Σ loss, pairs, Σ margin, pairs won).

    margin = β·((log π − log π_ref)(chosen) − (log π − log π_ref)(rejected)); the loss is
    −(1 − ε)·log σ(margin) − ε·log σ(−margin).

    Args:
        policy, reference: log-probabilities [2b], the chosen answers first.
    """
    chosen, rejected = (policy - reference).chunk(2)
    margin = beta * (chosen - rejected)
    logsigmoid = torch.nn.functional.logsigmoid
    each = -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)
    total = (each * batch.real).sum()
    won = ((margin > 0) * batch.real).sum()
    report = [total.detach(), batch.real.sum(), (margin * batch.real).sum().detach(), won]
    return total * batch.share / batch.pairs, torch.stack(report)
