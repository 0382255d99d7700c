"""Direct preference optimisation (Rafailov et al. 2023): the adapter learns from pairs of answers.

The reference is the frozen base, the same model with its adapter switched off, so it costs no second copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from elm_megatron.tune import lora
from elm_megatron.tune.pairs import PairBatch, PairData, Pairs
from elm_megatron.tune.tuner import Tuner


class DpoTuner(Tuner):
    """One rank of a preference tuning run."""

    reported = 4  # Σ loss, pairs, Σ margin, pairs whose chosen answer is ahead

    def _read_corpus(self) -> PairData:
        return PairData.read(self.config, self.base.tokenizer)

    def _shape(self, dataset: Pairs, ids: np.ndarray) -> tuple[int, int]:
        return 2 * self.settings.micro_batch_size, dataset.width(ids)

    def _run_batches(self, dataset: Pairs, ids: np.ndarray, forward_only: bool) -> list[float]:
        self._references = self._reference_log_probs(dataset, ids)
        return super()._run_batches(dataset, ids, forward_only)

    @torch.no_grad()
    def _reference_log_probs(self, dataset: Pairs, ids: np.ndarray) -> Iterator[torch.Tensor]:
        """The base's log-probabilities of each micro-batch, [2b], in order; empty before the last stage."""
        rows, length = self._shape(dataset, ids)
        batches = [self._batches(dataset, ids) for _ in self.chunks]
        with lora.switched_off(self.chunks):
            results = self.forward_backward(
                forward_step_func=_reference_step,
                data_iterator=batches if len(batches) > 1 else batches[0],
                model=self.chunks if len(self.chunks) > 1 else self.chunks[0],
                num_microbatches=len(ids) // (self.settings.micro_batch_size * self.dp),
                seq_length=length,
                micro_batch_size=rows,
                forward_only=True,
            )
        return iter(results)

    def _forward_step(self, batches: Iterator[PairBatch], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        batch = next(batches)
        output = model(batch.tokens, batch.position_ids, None, labels=batch.labels)
        dpo = self.config.dpo
        return output, lambda losses: preference_loss(
            log_probs(losses, batch.weights), next(self._references), batch, dpo.beta, dpo.label_smoothing
        )

    def _more_of_validation(self, sums: list[float], count: float) -> dict[str, float]:
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
