"""The loop's rules that need no ranks: schedules, sample order, guards, layouts."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conf.errors import InputError
from conf.schema.cluster import ClusterConfig, SiteConfig
from conf.schema.parallel import ParallelConfig
from conf.schema.pretrain import PretrainConfig
from conf.schema.train import BatchRamp
from elm_megatron.engine.data import sample_ids, steps_of_epochs
from elm_megatron.engine.guards import BadNumbers, Guard
from elm_megatron.engine.job import Train
from elm_megatron.engine.schedule import learning_rate
from elm_megatron.planner import layout
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import World
from tests.elm_megatron.configs import loop, pretrain_config, small_model
from tests.elm_megatron.rank_pool import RankPool


def test_cosine_with_warm_up() -> None:
    train = loop(lr=1.0, min_lr=0.1, warmup_steps=10)
    rates = [learning_rate(step, 110, train) for step in range(1, 111)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[59] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[9:] == sorted(rates[9:], reverse=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", 0.0),
        ("lr", -1.0),
        ("min_lr", -1e-5),
        ("weight_decay", -0.1),
        ("clip_grad", -1.0),
    ],
)
def test_rates_that_cannot_train_are_refused(key: str, value: float) -> None:
    train = loop(steps=1, lr=1e-3, min_lr=1e-4, seq_length=64)
    train.check(small_model(), 1)
    replace(train, clip_grad=0.0, weight_decay=0.0, min_lr=0.0).check(small_model(), 1)
    with pytest.raises(InputError, match=f"train.{key}="):
        replace(train, **{key: value}).check(small_model(), 1)


NAN = float("nan")


@pytest.mark.parametrize(
    ("key", "good", "bad", "allowed"),
    [
        ("eval_batches", (1, None), (0, -1), "must be at least 1, or null for the whole split."),
        ("seed", (0, 2**32 - 1), (-1, 2**32), "must be at least 0 and below 2**32."),
        ("beta1", (0.0, 0.999), (-0.1, 1.0, NAN), "must be at least 0 and below 1."),
        ("beta2", (0.0, 0.999), (-0.1, 1.0, NAN), "must be at least 0 and below 1."),
        ("eps", (1e-15,), (0.0, -1e-8, NAN), "must be above 0."),
        ("stall_seconds", (0.1,), (0.0, -1.0, NAN), "must be above 0."),
    ],
)
def test_settings_outside_their_range_are_refused(key: str, good: tuple, bad: tuple, allowed: str) -> None:
    train = loop(steps=1, seq_length=64)
    for value in good:
        replace(train, **{key: value}).check(small_model(), 1)
    for value in bad:
        with pytest.raises(InputError) as refused:
            replace(train, **{key: value}).check(small_model(), 1)
        assert str(refused.value) == f"train.{key}={value}: {allowed}"


@pytest.mark.parametrize(
    ("key", "bad", "allowed"),
    [
        ("rope_theta", 0.0, "must be above 0."),
        ("rope_theta", -1e4, "must be above 0."),
        ("rope_theta", NAN, "must be above 0."),
        ("norm_eps", 0.0, "must be above 0."),
        ("norm_eps", -1e-5, "must be above 0."),
        ("init_std", -0.02, "must be at least 0."),
    ],
)
def test_models_that_cannot_be_are_refused(key: str, bad: float, allowed: str) -> None:
    with pytest.raises(InputError) as refused:
        small_model(**{key: bad}).check()
    assert str(refused.value) == f"model.{key}={bad}: {allowed}"


def test_a_vocabulary_that_tp_cannot_split_is_refused() -> None:
    sizes = {"hidden_size": 96, "ffn_hidden_size": 192, "num_attention_heads": 6, "num_query_groups": 6}
    model = small_model(**sizes, vocab_size=31_990)
    for tp in (1, 2):
        ParallelConfig(tp=tp).check(model, tp)
    with pytest.raises(InputError) as refused:
        ParallelConfig(tp=3).check(model, 3)
    assert str(refused.value) == (
        "parallel.tp=3 does not divide the padded vocabulary of 32000 (model.vocab_size=31990 rounded up to "
        "a multiple of 128); of the divisors of model.num_query_groups=6 allowed are 1, 2."
    )
    ParallelConfig(tp=3).check(replace(model, vocab_size=128 * 3), 3)


def printed(world: World, config: PretrainConfig) -> str:
    """Train to the end; returns what it wrote to stdout."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        Train(config)(world)
    return said.getvalue()


def test_a_rate_that_rises_is_trained_with_and_noted(
    ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    train = loop(steps=1, lr=1e-4, min_lr=2e-4, seq_length=64)
    train.check(small_model(), 1)
    assert train.notes("tune") == ["the rate rises to tune.min_lr=0.0002, for tune.lr=0.0001 is below it"]
    assert replace(train, schedule="constant").notes() == []  # it never comes to min_lr
    assert replace(train, min_lr=1e-4).notes() == []
    config = pretrain_config(tmp_path / "run", small_data, steps=1, lr=1e-4, min_lr=2e-4)
    RunFolder(config.run.dir).create()
    (said,) = ranks.run(1, printed, config=config)
    assert "note: the rate rises to train.min_lr=0.0002, for train.lr=0.0001 is below it\n" in said


def test_wsd_and_constant_do_not_depend_on_the_length_before_the_decay() -> None:
    train = loop(lr=1.0, min_lr=0.0, schedule="wsd", wsd_decay_steps=5)
    assert [learning_rate(step, 20, train) for step in range(1, 16)] == [1.0] * 15
    assert learning_rate(20, 20, train) == 0.0
    assert learning_rate(18, 20, train) == pytest.approx(0.4)
    assert learning_rate(99, 100, replace(train, schedule="constant")) == 1.0


def test_every_epoch_visits_every_sample_in_its_own_order() -> None:
    ids = np.concatenate([sample_ids(at, 7, 10, seed=3) for at in range(0, 35, 7)])
    first, second, third = ids[:10], ids[10:20], ids[20:30]
    for epoch in (first, second, third):
        assert sorted(epoch) == list(range(10))
    assert list(first) != list(second) != list(third)
    assert list(sample_ids(12, 5, 10, seed=3)) == list(ids[12:17])


def test_steps_of_epochs_counts_what_it_drops() -> None:
    train = loop(epochs=3, seq_length=100, global_batch_size=8)
    assert steps_of_epochs(1001, train) == (3, 6)
    ramp = BatchRamp(start=2, increment=2, samples=12)  # 2, 2, 4, 6 and then 8
    assert steps_of_epochs(1001, replace(train, batch_ramp=ramp, epochs=2.9)) == (5, 7)


@pytest.mark.parametrize(
    ("start", "increment", "samples", "full"), [(2, 2, 12, 8), (16, 8, 1000, 48), (4, 4, 3, 16)]
)
def test_batch_ramp_is_megatrons(start: int, increment: int, samples: int, full: int) -> None:
    """The sizes of every update against megatron-core's own calculator, fed with the samples seen so far."""
    from megatron.core import num_microbatches_calculator

    if not hasattr(num_microbatches_calculator, "RampupBatchsizeNumMicroBatchesCalculator"):
        pytest.skip("megatron-core has no linear ramp from 0.19 on")
    calculator = num_microbatches_calculator.RampupBatchsizeNumMicroBatchesCalculator
    theirs = calculator(full, 1, 1, False, 0, start, increment, samples)
    train = loop(global_batch_size=full, batch_ramp=BatchRamp(start, increment, samples))
    consumed = 0
    for step in range(60):
        theirs.update(consumed, consistency_check=True)
        assert train.consumed(step) == consumed
        assert train.batch_size(step) == theirs.get_current_global_batch_size(), step
        consumed += train.batch_size(step)
        assert train.steps_within(consumed) == (step + 1, 0)
        assert train.steps_within(consumed - 1) == (step, train.batch_size(step) - 1)


def test_batch_ramp_refuses_what_does_not_fit() -> None:
    def refusal(ramp: BatchRamp, dp: int) -> str:
        train = loop(steps=1, global_batch_size=32, micro_batch_size=2, seq_length=64, batch_ramp=ramp)
        with pytest.raises(InputError) as caught:
            train.check(small_model(), dp)
        return str(caught.value)

    assert "batch_ramp.start=6 is not a multiple of train.micro_batch_size × dp = 4" in refusal(
        BatchRamp(6, 2, 9), 2
    )
    assert "do not lead from 8 to train.global_batch_size=32" in refusal(BatchRamp(8, 9, 9), 1)
    assert "batch_ramp.samples=0" in refusal(BatchRamp(8, 8, 0), 1)


def test_warm_up_in_tokens_follows_the_samples_of_a_ramp() -> None:
    ramp = BatchRamp(start=2, increment=2, samples=12)
    train = loop(lr=1.0, min_lr=0.0, seq_length=10, global_batch_size=8, warmup_tokens=160)
    assert [learning_rate(step, 20, train) for step in (1, 2)] == [0.5, 1.0]
    rates = [learning_rate(step, 20, replace(train, batch_ramp=ramp)) for step in range(1, 21)]
    assert rates[:4] == [20 / 160, 40 / 160, 80 / 160, 140 / 160]
    assert rates[3] < rates[4] <= 1.0 and rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.0)
    with pytest.raises(InputError, match=r"warmup_steps=5 and train\.warmup_tokens=160: give one"):
        replace(train, steps=1, micro_batch_size=1, warmup_steps=5).check(small_model(), 1)


def test_guard_refuses_jumps_and_bad_numbers() -> None:
    guard = Guard(spike_factor=2.0, window=8)
    guard.check(1, 50.0, 1.0)
    for step in range(2, 8):
        guard.check(step, 5.0, 1.0)
    with pytest.raises(BadNumbers, match="step 8"):
        guard.check(8, 10.5, 1.0)
    with pytest.raises(BadNumbers, match="nan"):
        guard.check(8, 5.0, float("nan"))
    Guard(None).check(1, 1e9, 1.0)


def big_run(tmp_path: Path, gpus: int, memory: float, **train: int) -> object:
    """The large model on one or more nodes of four GPUs."""
    sizes = {"hidden_size": 2048, "ffn_hidden_size": 5120, "num_layers": 16, "num_attention_heads": 32}
    model = small_model(**sizes, num_query_groups=32, vocab_size=32_000, max_position_embeddings=2048)
    values = {"precision": "bf16", "seq_length": 2048, "global_batch_size": 256, "micro_batch_size": 4}
    config = pretrain_config(tmp_path / "run", tmp_path, 1, model, **{**values, **train})
    site = SiteConfig(gpu_memory_gb=memory)
    config.cluster = ClusterConfig(
        executor="slurm", nodes=gpus // 4, gpus_per_node=4, tasks_per_node=4, device="gpu", site=site
    )
    return config


def test_auto_layout_does_not_cut_what_fits(tmp_path: Path) -> None:
    chosen, why = layout.choose(big_run(tmp_path, 8, 94))
    assert (chosen.tp, chosen.pp) == (1, 1)
    assert "dp=8" in why


def test_auto_layout_cuts_until_it_fits(tmp_path: Path) -> None:
    config = big_run(tmp_path, 8, 16)
    chosen, _ = layout.choose(config)
    assert chosen.model_ranks > 1
    assert layout.rank_bytes(config, chosen) <= 16 * 2**30
    config.parallel.cp = 2
    assert layout.choose(config)[0].cp == 2
    with pytest.raises(InputError, match="no layout fits"):
        layout.choose(big_run(tmp_path, 4, 1))
