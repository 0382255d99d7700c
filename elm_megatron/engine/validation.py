"""The loss on the validation split: when it is measured, and what comes of it."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from elm_megatron.checkpoint.save import CheckpointSaver
from elm_megatron.engine import distributed
from elm_megatron.engine.metrics import Metrics
from elm_megatron.engine.passes import Passes
from elm_megatron.run.folder import RunFolder


class Validation(Passes):
    """One rank's part in measuring; a Trainer is one.

    Attributes:
        step, steps: updates done, and to be done.
        valid_sets: the datasets measured on, by language.
        valid_loss: what this very step was measured with; None if it was not.
        metrics: rank 0's; None on others.
    """

    step: int
    steps: int
    valid_sets: dict[str, Any]
    valid_loss: float | None
    metrics: Metrics | None
    run: RunFolder
    saver: CheckpointSaver

    def _validation_is_due(self) -> bool:
        return self.step % self.settings.eval_every == 0 or self.step == self.steps

    def _lacks_validation(self) -> bool:
        """Whether the last life left no time for the validation of the step it ended with."""
        if not self._validation_is_due():
            return False
        rows = self.run.read_metrics(self.run.valid) if self.metrics else []
        missing = self.metrics is not None and all(row["step"] != self.step for row in rows)
        return distributed.largest(float(missing), self.device) > 0

    def _validate(self) -> None:
        self.evaluate()
        self._after_evaluation()

    def _validate_late(self) -> None:
        """After the checkpoint of this step was committed."""
        self._validate()
        if self.metrics:
            self.saver.annotate(self.step, valid_loss=self.valid_loss)

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean loss per token of the validation split, in nats; logged by rank 0, also per language."""
        for chunk in self.chunks:
            chunk.eval()
        sums = {name: self._sums_over(dataset) for name, dataset in self.valid_sets.items()}
        total, count, *more = (sum(column) for column in zip(*sums.values(), strict=True))
        loss = total / count
        for chunk in self.chunks:
            chunk.train()
        if self.metrics:
            perplexity = math.exp(min(loss, 700.0))
            row = {"step": self.step, "loss": loss, "perplexity": perplexity, "time": time.time()}
            row |= {f"loss_{name}": part[0] / part[1] for name, part in sums.items() if name}
            self.metrics.valid({**row, **self._more_of_validation(more, count)})
        self.valid_loss = loss
        return loss

    def _more_of_validation(self, sums: list[float], count: float) -> dict[str, float]:
        """Seam: further columns of valid.jsonl, from the sums after the first two."""
        return {}

    def _after_evaluation(self) -> None:
        """Seam: called on every rank after the validation at step 0 and those between updates."""
