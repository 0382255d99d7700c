"""The typed keys of the training loop, `train.*` (tuning adds its own to them, `tune.*`). Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from conf.refusal import require, require_choice
from conf.schema.model import ModelConfig


@dataclass
class BatchRamp:
    """A global batch that grows while a run is young, as Megatron's --rampup-batch-size.

    Attributes:
        start: sequences of the first updates.
        increment: by how many it grows at a time, until it is `global_batch_size`.
        samples: trained on when it is; all sizes but the last hold for equal shares of them.
    """

    start: int
    increment: int
    samples: int

    def check(self, full: int, unit: int, group: str) -> None:
        """Refuse a ramp that misses the full batch, or whose batches the data-parallel ranks cannot share."""
        for key in ("start", "increment", "samples"):
            value = getattr(self, key)
            require(value >= 1, f"{group}.batch_ramp.{key}={value}: must be at least 1.")
        require(
            self.start < full and (full - self.start) % self.increment == 0,
            f"{group}.batch_ramp: steps of {self.increment} do not lead from {self.start} to "
            f"{group}.global_batch_size={full}.",
        )
        for key in ("start", "increment"):
            value = getattr(self, key)
            require(
                value % unit == 0,
                f"{group}.batch_ramp.{key}={value} is not a multiple of {group}.micro_batch_size × dp = "
                f"{unit}.",
            )


@dataclass
class TrainConfig:
    """The loop: length, batch, optimizer, schedule, and how often things happen.

    Attributes:
        steps, epochs: length of the run; exactly one is given, the other is null.
        global_batch_size: sequences of one update, over all ranks.
        batch_ramp: smaller batches at first; null is none. The learning rate then follows the samples seen
            rather than the updates, as Megatron's does.
        warmup_steps, warmup_tokens: the rate rises over that many updates or tokens; at most one is above 0.
        wsd_decay_steps: updates of the decay at the end of schedule=wsd.
        z_loss: coefficient of log²Z per token, learnt beside the loss (PaLM took 1e-4); losses are reported
            without it, gradient norms with it.
        eval_batches: validation batches; null is the whole split.
        spike_factor: refuse a loss above this multiple of the last ones' median; null is never.
        stall_seconds: a rank silent for so long ends the job.
        wandb: a project of Weights & Biases that gets a copy of the metrics; null is none.
        init_from: a run (`name` or folder, `@step` behind it) whose weights a new run begins with.
    """

    steps: int | None = None
    epochs: float | None = None
    global_batch_size: int = 32
    micro_batch_size: int = 4
    seq_length: int = 256
    seed: int = 1234
    batch_ramp: BatchRamp | None = None
    precision: str = "fp32"
    lr: float = 3e-4
    min_lr: float = 3e-5
    schedule: str = "cosine"
    warmup_steps: int = 0
    warmup_tokens: int = 0
    wsd_decay_steps: int = 0
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip_grad: float = 1.0
    z_loss: float = 0.0
    distributed_optimizer: bool = True
    recompute: str = "none"
    log_every: int = 1
    save_every: int = 100
    eval_every: int = 100
    eval_batches: int | None = None
    keep_last: int = 3
    keep_every: int | None = None
    keep_best: bool = True
    spike_factor: float | None = None
    log_sample_ids: bool = False
    stall_seconds: float = 300.0
    init_from: str | None = None
    wandb: str | None = None

    def check(self, model: ModelConfig, dp: int, group: str = "train") -> None:
        """Refuse lengths, batches and choices that cannot be; `group` is the prefix of the keys."""
        require(
            (self.steps is None) != (self.epochs is None),
            f"{group}.steps={self.steps} and {group}.epochs={self.epochs}: give exactly one of the two.",
        )
        for key in ("steps", "epochs", "global_batch_size", "micro_batch_size", "seq_length", "keep_last"):
            value = getattr(self, key)
            require(value is None or value > 0, f"{group}.{key}={value}: must be above 0.")
        for key in ("log_every", "save_every", "eval_every"):
            require(getattr(self, key) > 0, f"{group}.{key}={getattr(self, key)}: must be at least 1.")
        require(
            self.eval_batches is None or self.eval_batches >= 1,
            f"{group}.eval_batches={self.eval_batches}: must be at least 1, or null for the whole split.",
        )
        require(0 <= self.seed < 2**32, f"{group}.seed={self.seed}: must be at least 0 and below 2**32.")
        unit = self.micro_batch_size * dp
        require(
            self.global_batch_size % unit == 0,
            f"{group}.global_batch_size={self.global_batch_size} is not a multiple of "
            f"{group}.micro_batch_size × dp = {self.micro_batch_size} × {dp} = {unit}.",
        )
        if self.batch_ramp is not None:
            self.batch_ramp.check(self.global_batch_size, unit, group)
        for key in ("warmup_steps", "warmup_tokens"):
            require(getattr(self, key) >= 0, f"{group}.{key}={getattr(self, key)}: must be at least 0.")
        require(
            not (self.warmup_steps and self.warmup_tokens),
            f"{group}.warmup_steps={self.warmup_steps} and {group}.warmup_tokens={self.warmup_tokens}: give "
            "one of the two, and 0 for the other.",
        )
        for key in ("lr", "eps", "stall_seconds"):
            require(getattr(self, key) > 0, f"{group}.{key}={getattr(self, key)}: must be above 0.")
        for key in ("min_lr", "weight_decay", "clip_grad"):
            require(getattr(self, key) >= 0, f"{group}.{key}={getattr(self, key)}: must be at least 0.")
        for key in ("beta1", "beta2", "z_loss"):
            value = getattr(self, key)
            require(0 <= value < 1, f"{group}.{key}={value}: must be at least 0 and below 1.")
        require(
            self.seq_length <= model.max_position_embeddings,
            f"{group}.seq_length={self.seq_length} is longer than "
            f"model.max_position_embeddings={model.max_position_embeddings}.",
        )
        require(
            self.spike_factor is None or self.spike_factor > 1.0,
            f"{group}.spike_factor={self.spike_factor}: must be above 1, or null for no guard.",
        )
        require(
            self.schedule != "wsd" or self.wsd_decay_steps > 0,
            f"{group}.schedule=wsd needs {group}.wsd_decay_steps above 0, found {self.wsd_decay_steps}.",
        )
        require(
            self.wandb is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", self.wandb) is not None,
            f"{group}.wandb={self.wandb!r}: must be a project's name of letters, digits and . _ -, or null.",
        )
        require_choice(f"{group}.precision", self.precision, ("fp32", "bf16", "fp8"))
        require_choice(f"{group}.schedule", self.schedule, ("cosine", "wsd", "constant"))
        require_choice(f"{group}.recompute", self.recompute, ("none", "selective", "full"))

    def notes(self, group: str = "train") -> list[str]:
        """What is allowed and hardly meant; `group` is the prefix of the keys."""
        if self.schedule == "constant" or self.min_lr <= self.lr:
            return []
        return [f"the rate rises to {group}.min_lr={self.min_lr:g}, for {group}.lr={self.lr:g} is below it"]

    def batch_sizes(self) -> list[int]:
        """Every size a global batch has in the course of a run, in order."""
        ramp, full = self.batch_ramp, self.global_batch_size
        return [*(range(ramp.start, full, ramp.increment) if ramp else ()), full]

    def plateaus(self) -> Iterator[tuple[int, int, int]]:
        """(updates before it, samples before it, batch size) of each part of the run with one batch size."""
        ramp, sizes = self.batch_ramp, self.batch_sizes()
        steps = samples = 0
        for k, size in enumerate(sizes[:-1], start=1):
            yield steps, samples, size
            assert ramp is not None
            end = -(-k * ramp.samples // (len(sizes) - 1))  # as soon as so many were seen, the batch grows
            count = max(0, -(-(end - samples) // size))
            steps, samples = steps + count, samples + count * size
        yield steps, samples, sizes[-1]

    def consumed(self, step: int) -> int:
        """Samples trained on in the first `step` updates."""
        steps, samples, size = [part for part in self.plateaus() if part[0] <= step][-1]
        return samples + (step - steps) * size

    def batch_size(self, step: int) -> int:
        """Samples of the update that follows `step` updates."""
        return self.consumed(step + 1) - self.consumed(step)

    def steps_within(self, samples: int) -> tuple[int, int]:
        """Whole updates in a number of samples, and the samples left over."""
        steps, before, size = [part for part in self.plateaus() if part[1] <= samples][-1]
        return steps + (samples - before) // size, (samples - before) % size
