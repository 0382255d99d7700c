"""What a run learns: everything in which pretraining, SFT and DPO differ. The Trainer knows no more of them.

A Task has the data, builds the model's modules with their weights at the start, computes the loss of a
micro-batch, and says which parameters a checkpoint holds and what belongs to a run's identity. The tasks are
`engine/pretraining.py`, `tune/sft.py` and `tune/dpo.py`.
"""

# ruff: noqa: B027 - a task may leave hooks empty
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.transformer.transformer_config import TransformerConfig

from conf.schema.train import TrainConfig
from elm_megatron.run.world import World

Schedule = Callable[..., list[torch.Tensor]]  # `Passes.schedule`


class Task(ABC):
    """One rank's part in what is learnt.

    Args:
        config: the verb's configuration.
        settings: its group of keys that governs the loop.
        world: this rank's place; the process groups are already formed.
        device: this rank's device.

    Attributes:
        group: the prefix of the loop's keys, "train" or "tune".
        reported: sums that a forward step reports; the first two are Σ loss in nats and what it counts.
        patience: stop after this many validations without a better one; None is never.
        transformer_engine: whether the model's layers may be those of Transformer Engine.
        packed: whether rows hold several sequences that do not see each other.
        per_token_loss: whether megatron-core divides the gradients by the tokens of the global batch.
        younger_identity: keys of `identity` that checkpoints of earlier versions lack.
        train_set: samples by id, with `ids(consumed, count)`.
        valid_sets: the datasets measured on, by language; one named "" where there are no languages.
        dp, dp_rank: data-parallel ranks, and which of them this is.
    """

    group: str
    reported = 2
    patience: int | None = None
    transformer_engine = True
    packed = False
    per_token_loss = False
    younger_identity: frozenset[str] = frozenset()
    train_set: Any
    valid_sets: dict[str, Any]

    def __init__(self, config: Any, settings: TrainConfig, world: World, device: torch.device):
        self.config, self.settings, self.world, self.device = config, settings, world, device
        self.dp = parallel_state.get_data_parallel_world_size()
        self.dp_rank = parallel_state.get_data_parallel_rank()

    def log(self, text: str) -> None:
        """Print a line, once for all ranks."""
        if self.world.rank == 0:
            print(text, flush=True)

    # -- length and data ------------------------------------------------------------------------------

    @abstractmethod
    def steps_of_epochs(self) -> int:
        """Whole updates in the epochs that the settings ask for.

        Raises:
            InputError: there are none.
        """

    @abstractmethod
    def tokens(self, step: int) -> int:
        """Tokens trained on in the first `step` updates."""

    @abstractmethod
    def batches(self, dataset: Any, ids: np.ndarray) -> Iterator[Any]:
        """This rank's micro-batches of a global batch."""

    @abstractmethod
    def shape(self, dataset: Any, ids: np.ndarray) -> tuple[int, int]:
        """(rows, tokens a row) of every micro-batch of a global batch; stages exchange such tensors."""

    def valid_targets(self) -> dict[str, int]:
        """Tokens of the validation split that a loss is taken of, by language; {} without languages."""
        return {}

    def origin(self, ids: np.ndarray) -> dict[str, list[int]]:
        """Further columns of samples.jsonl: where samples come from."""
        return {}

    # -- model ----------------------------------------------------------------------------------------

    @abstractmethod
    def modules(self, mcore: TransformerConfig, transformer_engine: bool) -> list[torch.nn.Module]:
        """This rank's model chunks with their weights at the start of a new run."""

    def begin_with(self, source: str, chunks: list[Any], optimizer: Any) -> None:
        """Put in the weights that `init_from` names, when a run begins."""

    def is_saved(self, param: torch.nn.Parameter) -> bool:
        """Whether a checkpoint holds a parameter."""
        return True

    # -- one update -----------------------------------------------------------------------------------

    def before_step(self, step: int) -> None:
        """Called on every rank before the update that follows `step` updates."""

    def before_batch(self, chunks: list[Any], schedule: Schedule, dataset: Any, ids: np.ndarray) -> None:
        """Called on every rank before a global batch runs, in training and in validation.

        Args:
            schedule: runs the batch through the pipeline with another forward step.
        """

    @abstractmethod
    def forward_step(self, batches: Iterator[Any], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        """One micro-batch through this stage, in the form megatron-core's schedules ask for."""

    def adjust_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row of metrics.jsonl, without figures that mean nothing here."""
        return row

    def validation_columns(self, sums: list[float], count: float) -> dict[str, float]:
        """Further columns of valid.jsonl, from the sums after the first two."""
        return {}

    # -- records --------------------------------------------------------------------------------------

    @abstractmethod
    def facts(self, step: int) -> dict[str, Any]:
        """What run.json holds of the data, after `step` updates."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a checkpoint's manifest holds beside the numbers, and a resumed run must have too."""

    def publish(self, step: int) -> None:
        """Called on every rank when the checkpoint of `step` was committed and is the run's result.

        That is at the end, or with `patience` at every validation that is the best so far.
        """

    @property
    def published(self) -> bool:
        """Whether `publish` has left a result in the run's folder."""
        return False
