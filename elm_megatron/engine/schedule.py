"""Learning rate as a pure function of the step, so that resuming needs no state."""

from __future__ import annotations

import math

from conf.schema.train import TrainConfig


def learning_rate(step: int, steps: int, train: TrainConfig) -> float:
    """The rate used for update number `step`, counted from 1.

    Warm-up rises linearly to `lr` over `warmup_steps` or `warmup_tokens`. Then: `cosine` falls to `min_lr` at
    the last step; `constant` stays; `wsd` stays and falls linearly to `min_lr` over the last
    `wsd_decay_steps` (warm-up, stable, decay: Hu et al. 2024, MiniCPM). With a batch ramp these are linear
    and cosine in samples, which is why time is counted in full batches here.

    Args:
        step: 1 … steps.
        steps: updates of the whole run.
    """
    now, end = _full_batches(step, train), _full_batches(steps, train)
    warm = _full_batches(train.warmup_steps, train)
    if train.warmup_tokens:
        warm = train.warmup_tokens / (train.seq_length * train.global_batch_size)
    if now <= warm:
        return train.lr * now / warm
    if train.schedule == "constant":
        return train.lr
    if train.schedule == "wsd":
        decay = end - _full_batches(max(0, steps - train.wsd_decay_steps), train)
        left = end - now
        if left >= decay:
            return train.lr
        return train.min_lr + (train.lr - train.min_lr) * left / decay
    done = (now - warm) / max(1, end - warm)
    return train.min_lr + 0.5 * (train.lr - train.min_lr) * (1.0 + math.cos(math.pi * min(1.0, done)))


def _full_batches(step: int, train: TrainConfig) -> float:
    """What the first `step` updates train on, in global batches of full size; without a ramp, `step`."""
    return train.consumed(step) / train.global_batch_size
