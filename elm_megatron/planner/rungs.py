"""The small models of a ladder: their sizes, batches and learning rates. Torch-free.

A small model has the proportions of the large one: hidden size, MLP and layers shrink alike. It is trained on
as many tokens for each weight. The learning rate grows as the width shrinks, as in conf/train/.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from conf.errors import InputError
from conf.schema.ladder import LadderConfig
from conf.schema.model import ModelConfig
from conf.schema.pretrain import PretrainConfig
from conf.schema.run import RunConfig
from elm_megatron.planner.length import dataset_tokens, steps_of

HIGHEST_LR = 3e-3
MOST_PASSES = 4  # over the data, up to which they are nearly as good as new ones (Muennighoff et al. 2023)


def weights(model: ModelConfig) -> int:
    """Weights that count for a family: those in matrix products, without the embedding."""
    return model.matmul_parameters()


def target_tokens(config: LadderConfig) -> int:
    """Tokens that the large model would be trained on."""
    if config.tokens:
        return config.tokens
    train = config.train
    return train.consumed(steps_of(train, dataset_tokens(config)[0])) * train.seq_length


def smaller(model: ModelConfig, width: float) -> ModelConfig:
    """A model of the same proportions.

    Args:
        model: the large one.
        width: share of its hidden size.
    """
    heads = max(1, round(model.num_attention_heads * width))
    head = max(2, round(model.hidden_size * width / heads / 2) * 2)
    groups = max(1, round(model.num_query_groups * heads / model.num_attention_heads))
    while heads % groups:
        groups -= 1
    return replace(
        model,
        name=f"{model.name}-{heads * head}",
        hidden_size=heads * head,
        ffn_hidden_size=max(32, round(model.ffn_hidden_size * width / 32) * 32),
        num_layers=max(1, round(model.num_layers * width)),
        num_attention_heads=heads,
        num_query_groups=groups,
    )


def repeats(config: LadderConfig) -> str | None:
    """What to know where the data are repeated so often that losses follow no power of compute."""
    passes = target_tokens(config) / max(1, dataset_tokens(config)[0])
    if passes <= MOST_PASSES:
        return None
    return (
        f"{config.model.name} would see the data {passes:.0f} times; beyond {MOST_PASSES} times they teach "
        "little (Muennighoff et al. 2023), and losses follow no power of compute"
    )


def rungs(config: LadderConfig) -> list[PretrainConfig]:
    """The runs of a ladder, the smallest first.

    Raises:
        InputError: a small model cannot be, two are the same, or the tokens are too few for one.
    """
    each = target_tokens(config) / weights(config.model)
    found = [_rung(config, width, each) for width in sorted(set(config.widths))]
    names = [one.run.name for one in found]
    if len(set(names)) < len(names):
        sizes = ", ".join(str(one.model.hidden_size) for one in found)
        raise InputError(
            f"widths={config.widths}: of model={config.model.name} they make hidden sizes {sizes}, and each "
            "must be another one."
        )
    for one in found:
        one.check()
    return found


def _rung(config: LadderConfig, width: float, tokens_per_weight: float) -> PretrainConfig:
    model, train = smaller(config.model, width), config.train
    tokens = tokens_per_weight * weights(model)
    samples = int(tokens / train.seq_length)
    batch = _batch(train.global_batch_size, samples, config)
    steps = samples // batch
    if steps < config.least_steps:
        raise InputError(
            f"widths={config.widths}: {model.name} would be trained on {tokens:,.0f} tokens, which are "
            f"{steps} updates of {batch} sequences, fewer than least_steps={config.least_steps}; give larger "
            "widths, more tokens, or a lower least_steps."
        )
    whole = train.steps or steps_of(train, dataset_tokens(config)[0])
    faster = min(config.model.hidden_size / model.hidden_size, HIGHEST_LR / train.lr)
    # Warm-up and decay keep their share of the run.
    share = steps / max(1, whole)
    loop = replace(
        train,
        steps=steps,
        epochs=None,
        global_batch_size=batch,
        micro_batch_size=_micro_batch(train.least_micro_batch, batch // config.dp),
        batch_ramp=None,
        lr=train.lr * max(1.0, faster),
        min_lr=train.min_lr * max(1.0, faster),
        warmup_steps=min(steps // 2, round(train.warmup_steps * share)),
        warmup_tokens=0,
        wsd_decay_steps=max(1, round(train.wsd_decay_steps * share)) if train.schedule == "wsd" else 0,
        save_every=max(train.save_every, steps),
        eval_every=steps,
        keep_last=1,
        keep_best=False,
        keep_every=None,
        profile=None,
    )
    name = f"{config.run.name}-{model.hidden_size}"
    run = RunConfig(name, str(Path(config.run.dir).with_name(name)))
    return replace(config.pretraining(), run=run, model=model, train=loop)


def _batch(most: int, samples: int, config: LadderConfig) -> int:
    """The largest global batch, halved from the large model's, that gives enough updates."""
    batch = most
    while samples // batch < config.least_steps and batch % 2 == 0 and batch // 2 >= config.dp:
        batch //= 2
    return batch


def _micro_batch(wanted: int, share: int) -> int:
    """The largest divisor of a rank's share that is not above what was asked for."""
    return max(size for size in range(1, max(1, min(wanted, share)) + 1) if share % size == 0)
