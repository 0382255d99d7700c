"""A ladder's small models keep the family's proportions, and its prediction is kept for the plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conf import compose
from conf.errors import InputError
from conf.schema.ladder import LadderConfig
from elm_megatron.planner import climb
from elm_megatron.planner.rungs import repeats, rungs, smaller, target_tokens, weights

KEYS = ("model=large", "cluster=snellius")


def asked(*keys: str) -> LadderConfig:
    """A composed and checked ladder."""
    found: list[LadderConfig] = []
    compose.run("ladder", LadderConfig, found.append, list(keys))
    return found[0]


def test_small_models_keep_the_proportions() -> None:
    config = asked(*KEYS)
    for run, width in zip(rungs(config), config.widths, strict=True):
        model, whole = run.model, config.model
        model.check()
        assert model.hidden_size == whole.hidden_size * width and model.head_dim == whole.head_dim
        assert model.num_layers == whole.num_layers * width
        assert model.ffn_hidden_size == pytest.approx(whole.ffn_hidden_size * width, abs=16)
        assert model.vocab_size == whole.vocab_size


def test_each_is_trained_on_as_many_tokens_for_each_weight() -> None:
    config = asked(*KEYS)
    each = target_tokens(config) / weights(config.model)
    for run in rungs(config):
        train = run.train
        tokens = train.steps * train.global_batch_size * train.seq_length
        assert tokens / weights(run.model) == pytest.approx(each, rel=0.02)
        assert train.steps >= config.least_steps and train.warmup_steps < train.steps
        assert train.lr == pytest.approx(min(3e-3, 3e-4 * 2048 / run.model.hidden_size))


def test_data_that_are_repeated_too_often_are_said() -> None:
    assert repeats(asked(*KEYS)) is None
    assert "would see the data 30 times" in repeats(asked(*KEYS, "train.epochs=30"))


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 3), (32, 8)])
def test_any_head_and_group_can_shrink(heads: tuple[int, int]) -> None:
    large = replace(
        asked(*KEYS).model, hidden_size=heads[0] * 40, num_attention_heads=heads[0], num_query_groups=heads[1]
    )
    for width in (0.05, 0.1, 0.3, 0.5, 0.9):
        smaller(large, width).check()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["widths=[0.1,0.2]"], "at least 3 different ones"),
        (["widths=[0.1,0.2,1.5]"], "above 0 and below 1"),
        (["widths=[0.125,0.126,0.25]"], "each must be another one"),
        (["tokens=5000"], "fewer than least_steps=100"),
        (["tokens=0"], "tokens=0: must be at least 1"),
    ],
)
def test_nonsense_is_one_sentence(keys: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words.replace("[", r"\[")) as caught:
        rungs(asked(*KEYS, *keys))
    assert "\n" not in str(caught.value)


def test_the_prediction_is_printed_kept_and_shown_by_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = asked(*KEYS, f"run.dir={tmp_path}/ladder-large-eur")
    runs = rungs(config)
    assert climb.conclude(config, runs) == 0
    assert "not done yet: ladder-large-eur-256, " in capsys.readouterr().out
    for run in runs:
        tokens = run.train.steps * run.train.global_batch_size * run.train.seq_length
        loss = 1.7 + 3 * (6 * weights(run.model) * tokens / 1e15) ** -0.15
        folder = Path(run.run.dir)
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"schema": 1, "state": "done", "valid_loss": loss}))
    assert climb.conclude(config, runs) == 0
    out = capsys.readouterr().out
    assert "ladder-large-eur-768, left out: predicted" in out and "inside" in out
    tokens = target_tokens(config)
    true = 1.7 + 3 * (6 * weights(config.model) * tokens / 1e15) ** -0.15
    kept = json.loads((tmp_path / "ladder-large-eur" / "ladder.json").read_text())
    assert kept["low"] < true < kept["high"] and kept["loss"] == pytest.approx(true, rel=0.02)
    plan = replace(config.pretraining(), run=replace(config.run, dir=f"{tmp_path}/plan-large"))
    assert "predicted from 4 smaller models" in climb.predicted_loss(plan, tokens)
    assert "another length than this run's" in climb.predicted_loss(plan, 10 * tokens)
    other = replace(plan, model=replace(plan.model, hidden_size=1024))
    assert climb.predicted_loss(other, tokens) is None
