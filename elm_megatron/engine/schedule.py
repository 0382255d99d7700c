"""Learning rate as a pure function of the step, so that resuming needs no state."""

from __future__ import annotations

import math

from elm_megatron.config import TrainConfig


def learning_rate(step: int, steps: int, train: TrainConfig) -> float:
    """The rate used for update number `step`, counted from 1.

    Warm-up rises linearly to `lr` over `warmup_steps`. Then: `cosine` falls to `min_lr` at the last step;
    `constant` stays; `wsd` stays and falls linearly to `min_lr` over the last `wsd_decay_steps`
    (warm-up, stable, decay: Hu et al. 2024, MiniCPM).

    Args:
        step: 1 … steps.
        steps: updates of the whole run.
    """
    if step <= train.warmup_steps:
        return train.lr * step / train.warmup_steps
    if train.schedule == "constant":
        return train.lr
    if train.schedule == "wsd":
        left = steps - step
        if left >= train.wsd_decay_steps:
            return train.lr
        return train.min_lr + (train.lr - train.min_lr) * left / train.wsd_decay_steps
    done = (step - train.warmup_steps) / max(1, steps - train.warmup_steps)
    return train.min_lr + 0.5 * (train.lr - train.min_lr) * (1.0 + math.cos(math.pi * min(1.0, done)))
