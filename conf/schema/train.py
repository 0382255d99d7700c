"""The typed keys of the training loop, `train.*` (tuning adds its own to them, `tune.*`). Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from conf import typed
from conf.errors import require
from conf.limits import BelowOne, Count, Fits, Natural, NotNegative, Positive, Seed, Within
from conf.schema.model import ModelConfig

Project = Annotated[
    str,
    Fits(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "a project's name of letters, digits and . _ -, or null"),
]
Batches = Annotated[int, Within(ge=1, allowed="at least 1, or null for the whole split")]
AUTO = "auto"
MicroBatch = Count | Literal["auto"]


@dataclass
class BatchRamp:
    """A global batch that grows while a run is young, as Megatron's --rampup-batch-size.

    Attributes:
        start: sequences of the first updates.
        increment: by how many it grows at a time, until it is `global_batch_size`.
        samples: trained on when it is; all sizes but the last hold for equal shares of them.
    """

    start: Count
    increment: Count
    samples: Count

    def check(self, full: int, unit: int, group: str) -> None:
        """Refuse a ramp that misses the full batch, or whose batches the data-parallel ranks cannot share."""
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
class Profile:
    """The steps that torch's profiler looks at.

    Attributes:
        steps: the first and the last of them, as [10,12].
    """

    steps: list[Count]

    def check(self, group: str) -> None:
        """Refuse what names no span of steps."""
        require(
            len(self.steps) == 2 and self.steps[0] <= self.steps[1],
            f"{group}.profile.steps={self.steps}: must be the first and the last step, as [10,12].",
        )


@dataclass
class TrainConfig:
    """The loop: length, batch, optimizer, schedule, and how often things happen.

    The defaults are those of a model of real size; conf/train/<model>.yaml, where there is one, changes them.

    Attributes:
        steps: updates of the whole run; null where `epochs` is given.
        epochs: passes over the data; null where `steps` is given.
        global_batch_size: sequences of one update, over all ranks.
        micro_batch_size: sequences that a rank computes at a time; auto: the planner chooses it by memory and
            time when the run is started, and config.yaml keeps the number.
        seq_length: tokens of a sequence.
        seed: of the weights, the order of the data, and dropout.
        batch_ramp: smaller batches at first, as {start: 64, increment: 64, samples: 100000}; null is none.
            The learning rate then follows the samples seen rather than the updates, as Megatron's does.
        precision: fp32, bf16 or fp8 of the matrix products; weights and optimizer are fp32.
        lr: learning rate after the warm-up.
        min_lr: learning rate at the end.
        schedule: cosine, wsd (constant, then a decay) or constant.
        warmup_steps: the rate rises over that many updates; 0 where `warmup_tokens` is given.
        warmup_tokens: the rate rises over that many tokens; 0 where `warmup_steps` is given.
        wsd_decay_steps: updates of the decay at the end of schedule=wsd.
        weight_decay: of the matrices; norms have none.
        beta1: Adam's decay of the mean gradient.
        beta2: Adam's decay of the mean squared gradient.
        eps: Adam's term beside the root of the mean squared gradient.
        clip_grad: largest norm of a gradient; 0 is no limit.
        z_loss: coefficient of log²Z per token, learnt beside the loss (PaLM took 1e-4); losses are reported
            without it, gradient norms with it.
        goldfish: leave one training token in so many out of the loss, chosen by the tokens before it, so that
            long passages are not learnt by heart (Hans et al. 2024, who took 3 and 4); 0 is off. Validation
            counts every token.
        goldfish_context: how many tokens before a token decide whether it is left out.
        distributed_optimizer: share the optimizer's state among the data-parallel ranks.
        recompute: none, selective or full: activations computed again in the backward pass, to save memory.
        log_every: updates between two logged steps.
        save_every: updates between two checkpoints.
        eval_every: updates between two validations.
        eval_batches: validation batches; null is the whole split.
        keep_last: how many of the newest checkpoints stay.
        keep_every: checkpoints at multiples of this step stay too; null is none.
        keep_best: the checkpoint with the lowest validation loss stays too.
        spike_factor: refuse a loss above this multiple of the last ones' median; null is never.
        log_sample_ids: log which samples each update saw.
        stall_seconds: a rank silent for so long ends the job.
        init_from: a run (`name` or folder, `@step` behind it) whose weights a new run begins with.
        profile: {steps: [10,12]} writes traces of these steps and a summary into the run's profile/; null is
            none.
        wandb: a project of Weights & Biases that gets a copy of the metrics; null is none.
    """

    steps: Count | None = None
    epochs: Positive | None = 3.0
    global_batch_size: Count = 256
    micro_batch_size: MicroBatch = 4
    seq_length: Count = 2048
    seed: Seed = 1234
    batch_ramp: BatchRamp | None = None
    precision: Literal["fp32", "bf16", "fp8"] = "bf16"
    lr: Positive = 3e-4
    min_lr: NotNegative = 3e-5
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup_steps: Natural = 1000
    warmup_tokens: Natural = 0
    wsd_decay_steps: int = 0
    weight_decay: NotNegative = 0.1
    beta1: BelowOne = 0.9
    beta2: BelowOne = 0.95
    eps: Positive = 1e-8
    clip_grad: NotNegative = 1.0
    z_loss: BelowOne = 0.0
    goldfish: Natural = 0
    goldfish_context: Count = 13
    distributed_optimizer: bool = True
    recompute: Literal["none", "selective", "full"] = "none"
    log_every: Count = 10
    save_every: Count = 500
    eval_every: Count = 500
    eval_batches: Batches | None = 16
    keep_last: Count = 3
    keep_every: int | None = None
    keep_best: bool = True
    spike_factor: Annotated[float, Within(gt=1, allowed="above 1, or null for no guard")] | None = None
    log_sample_ids: bool = False
    stall_seconds: Positive = 300.0
    init_from: str | None = None
    profile: Profile | None = None
    wandb: Project | None = None

    @property
    def least_micro_batch(self) -> int:
        """The micro-batch; 1 as long as the planner has still to choose it."""
        return 1 if self.micro_batch_size == AUTO else int(self.micro_batch_size)

    def check(self, model: ModelConfig, dp: int, group: str = "train") -> None:
        """Refuse lengths, batches and choices that cannot be; `group` is the prefix of the keys."""
        typed.check(self, group)
        require(
            (self.steps is None) != (self.epochs is None),
            f"{group}.steps={self.steps} and {group}.epochs={self.epochs}: give exactly one of the two.",
        )
        unit = self.least_micro_batch * dp
        require(
            self.global_batch_size % unit == 0,
            f"{group}.global_batch_size={self.global_batch_size} is not a multiple of "
            f"{group}.micro_batch_size × dp = {self.least_micro_batch} × {dp} = {unit}.",
        )
        if self.profile is not None:
            self.profile.check(group)
        if self.batch_ramp is not None:
            self.batch_ramp.check(self.global_batch_size, unit, group)
        require(
            not (self.warmup_steps and self.warmup_tokens),
            f"{group}.warmup_steps={self.warmup_steps} and {group}.warmup_tokens={self.warmup_tokens}: give "
            "one of the two, and 0 for the other.",
        )
        require(
            self.seq_length <= model.max_position_embeddings,
            f"{group}.seq_length={self.seq_length} is longer than "
            f"model.max_position_embeddings={model.max_position_embeddings}.",
        )
        require(self.goldfish != 1, f"{group}.goldfish=1: would leave out every token; give 0 or at least 2.")
        require(
            not self.goldfish or self.goldfish_context <= self.seq_length,
            f"{group}.goldfish_context={self.goldfish_context} is longer than {group}.seq_length="
            f"{self.seq_length}, so that no token would be left out.",
        )
        require(
            self.schedule != "wsd" or self.wsd_decay_steps > 0,
            f"{group}.schedule=wsd needs {group}.wsd_decay_steps above 0, found {self.wsd_decay_steps}.",
        )

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
