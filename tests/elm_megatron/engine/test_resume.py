"""Runs that are cut and go on: the same layout bit for bit, another layout within rounding."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conf.schema.train import BatchRamp
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.run import requests
from elm_megatron.run.steps import committed
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.small_dataset import make_dataset

COLUMNS = ("step", "tokens", "loss", "lr", "grad_norm")


def columns(rows: list[dict]) -> list[tuple]:
    """What must not depend on how often a run was cut."""
    return [tuple(row[name] for name in COLUMNS) for row in rows]


def test_cut_and_repeated_is_bit_identical(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    whole = pretrain_config(tmp_path / "whole", small_data, 2, tp=2, save_every=4)
    cut = pretrain_config(tmp_path / "cut", small_data, 2, tp=2, save_every=4)
    for config in (whole, cut):
        rank_functions.folder(config)
    ranks.run(2, rank_functions.train, config=whole)
    outcome = ranks.run(2, rank_functions.train_with_signal, config=cut, step=6, number=signal.SIGUSR2)
    assert outcome == ["requeue"] * 2
    run = rank_functions.folder(cut)
    assert run.read()["state"] == "running"  # the batch script says "requeued", when Slurm has done it
    assert run.latest_step() == 6
    first = run.read()
    assert 0 < first["data_share"] < 1 and 0 < first["save_seconds"] < first["seconds"]
    assert ranks.run(2, rank_functions.train, config=cut) == ["done"] * 2
    assert columns(run.read_metrics()) == columns(rank_functions.folder(whole).read_metrics())
    assert run.read()["state"] == "done"
    assert run.read()["save_seconds"] > first["save_seconds"]


def test_sigterm_saves_and_is_cancelled(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    config = pretrain_config(tmp_path / "run", small_data, 2, tp=2)
    run = rank_functions.folder(config)
    outcome = ranks.run(2, rank_functions.train_with_signal, config=config, step=3, number=signal.SIGTERM)
    assert outcome == ["cancelled"] * 2
    assert run.latest_step() == 3
    assert run.read()["state"] == "cancelled"


def test_a_file_asks_for_a_save_and_for_the_end(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    """A save changes nothing and training goes on; a stop is as SIGTERM, and run.json names who asked."""
    config = pretrain_config(tmp_path / "run", small_data, 2, tp=2, save_every=100, keep_last=9)
    run = rank_functions.folder(config)
    (run.path / requests.FOLDER).mkdir()
    ask = rank_functions.train_with_request
    assert ranks.run(2, ask, config=config, step=3, what=requests.STOP) == ["cancelled"] * 2
    assert run.latest_step() == 3 and run.read()["state"] == "cancelled"
    assert run.read()[requests.ASKED_BY]
    assert ranks.run(2, ask, config=config, step=5, what=requests.SAVE) == ["done"] * 2
    assert (run.checkpoints / "step-00000005/manifest.json").exists() and run.latest_step() > 5
    assert list((run.path / requests.FOLDER).iterdir()) == []


def test_rows_after_the_checkpoint_are_taken_back(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    """A run killed between two saves logs its lost steps again, and each stands once."""
    config = pretrain_config(tmp_path / "run", small_data, save_every=4)
    run = rank_functions.folder(config)
    ranks.run(1, rank_functions.train, config=config)
    expected = columns(run.read_metrics())
    for folder in committed(run):
        if folder.name != "step-00000004":
            (folder / "manifest.json").unlink()  # as if steps 5 to 10 had never been saved
    ranks.run(1, rank_functions.train, config=config)
    assert columns(run.read_metrics()) == expected
    assert [row["step"] for row in run.read_metrics(run.lost_metrics) if "lr" in row] == list(range(5, 11))


def test_other_layouts_go_on(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    """tp2 → dp2 → pp2 → one rank within one run, over more than three epochs: the same samples and losses."""
    length = {"steps": 16, "global_batch_size": 32, "save_every": 4, "eval_every": 4, "log_sample_ids": True}
    whole = pretrain_config(tmp_path / "whole", small_data, **length)
    uncut = rank_functions.folder(whole)
    ranks.run(1, rank_functions.train, config=whole)
    lives = [(2, {"tp": 2}, 4), (2, {}, 8), (2, {"pp": 2}, 12), (1, {}, None)]
    for world, layout, stop in lives:
        config = pretrain_config(tmp_path / "changing", small_data, world, **length, **layout)
        run = rank_functions.folder(config)
        if stop is None:
            ranks.run(world, rank_functions.train, config=config)
        else:
            ranks.run(
                world, rank_functions.train_with_signal, config=config, step=stop, number=signal.SIGUSR2
            )
            assert run.latest_step() == stop
    mine, reference = run.read_metrics(), uncut.read_metrics()
    assert [row["step"] for row in mine] == list(range(1, 17))
    assert run.read_metrics(run.samples) == uncut.read_metrics(uncut.samples)
    ids = [i for row in run.read_metrics(run.samples) for i in row["ids"]]
    epoch = len(set(ids))
    assert len(ids) > 3 * epoch
    for start in range(0, 3 * epoch, epoch):
        assert sorted(ids[start : start + epoch]) == list(range(epoch))
    for a, b in zip(mine, reference, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


def test_batch_ramp_goes_on_where_it_was(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    """Cut in the middle of the ramp and resumed over other ranks: batches, rates and losses stay."""
    ramp = BatchRamp(start=4, increment=4, samples=40)
    length = {"steps": 8, "global_batch_size": 16, "batch_ramp": ramp, "warmup_tokens": 2000}
    length |= {"log_sample_ids": True}
    whole = pretrain_config(tmp_path / "whole", small_data, **length)
    uncut = rank_functions.folder(whole)
    ranks.run(1, rank_functions.train, config=whole)
    config = pretrain_config(tmp_path / "cut", small_data, 2, **length)
    run = rank_functions.folder(config)
    ranks.run(2, rank_functions.train_with_signal, config=config, step=5, number=signal.SIGUSR2)
    assert Checkpoint.open(committed(run)[0]).manifest["consumed_samples"] == 4 * 4 + 8
    config = pretrain_config(tmp_path / "cut", small_data, 2, tp=2, **length)
    ranks.run(2, rank_functions.train, config=config)
    mine, reference = run.read_metrics(), uncut.read_metrics()
    assert [row["tokens"] // 64 for row in mine] == [4, 8, 12, 16, 24, 32, 44, 60]
    assert [row["lr"] for row in mine] == [row["lr"] for row in reference]
    assert run.read_metrics(run.samples) == uncut.read_metrics(uncut.samples)
    for a, b in zip(mine, reference, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_bad_numbers_stop_before_the_update(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    config = pretrain_config(tmp_path / "run", small_data, 2, tp=2, save_every=4)
    run = rank_functions.folder(config)
    texts = ranks.run(2, rank_functions.train_to_bad_numbers, config=config, step=6, rank=1)
    assert all("step 6" in text and "the update was not made" in text for text in texts)
    assert all("weights not finite on rank 1;" in text for text in texts)
    assert run.latest_step() == 4
    assert run.read_metrics()[-1]["step"] == 5


def test_asynchronous_save_is_a_picture_of_its_step(
    ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    """Written while training goes on, and still bit for bit what a run that ends there saves."""
    going_on = pretrain_config(tmp_path / "going-on", small_data, 2, tp=2, save_every=4)
    ending = pretrain_config(tmp_path / "ending", small_data, 2, tp=2, steps=4)
    for config in (going_on, ending):
        rank_functions.folder(config)
    ranks.run(2, rank_functions.train_with_slow_writes, config=going_on)
    ranks.run(2, rank_functions.train, config=ending)
    pair = [rank_functions.folder(config).checkpoints / "step-00000004" for config in (going_on, ending)]
    mine, expected = (Checkpoint.open(folder).reader() for folder in pair)
    for section in ("weight", "exp_avg", "exp_avg_sq"):
        assert mine.names(section) == expected.names(section) != []
        for name in expected.names(section):
            assert torch.equal(mine.read(name, section=section), expected.read(name, section=section))


def test_flipped_bit_is_found_and_the_one_before_used(
    ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    config = pretrain_config(tmp_path / "run", small_data, save_every=4)
    run = rank_functions.folder(config)
    ranks.run(1, rank_functions.train, config=config)
    expected = columns(run.read_metrics())
    newest = committed(run)[0] / "rank-00000-0.safetensors"
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    (said,) = ranks.run(1, rank_functions.train_aloud, config=config)
    assert "checkpoint passed over" in said and "step-00000010/rank-00000-0.safetensors" in said
    assert columns(run.read_metrics()) == expected
    assert [row["step"] for row in run.read_metrics(run.lost_metrics) if "lr" in row] == [9, 10]
    assert (run.checkpoints / "damaged-step-00000010" / newest.name).read_bytes() == damaged
    assert committed(run)[0].name == "step-00000010"
    Checkpoint.open(committed(run)[0]).verify()


def test_a_run_without_an_intact_checkpoint_does_not_start_over(
    ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    config = pretrain_config(tmp_path / "run", small_data, 2, tp=2, save_every=4)
    run = rank_functions.folder(config)
    ranks.run(2, rank_functions.train, config=config)
    before = run.metrics.read_bytes()
    for folder in committed(run):
        os.truncate(folder / "rank-00001-0.safetensors", 100)
    for said in ranks.run(2, rank_functions.train_refused, config=config):
        assert "none of its 3 checkpoints is intact" in said
    assert run.metrics.read_bytes() == before
    assert len(committed(run)) == 3


def test_a_life_on_another_dataset_is_refused(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    """A dataset that was built again while the job waited in the queue."""
    run = rank_functions.folder(pretrain_config(tmp_path / "run", small_data))
    first = pretrain_config(tmp_path / "run", small_data, save_every=4)
    ranks.run(1, rank_functions.train_with_signal, config=first, step=5, number=signal.SIGUSR2)
    other = make_dataset(tmp_path / "other", languages=["nl", "en"])
    again = pretrain_config(tmp_path / "run", other, save_every=4)
    (said,) = ranks.run(1, rank_functions.train_refused, config=again)
    assert "its checkpoint has another manifest_sha256" in said
    assert run.read()["step"] == 5


def test_sample_ids_have_no_gap_and_no_repeat(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    """Cut in the second of three epochs and resumed elsewhere: every sample comes once an epoch."""
    changes = {"epochs": 3, "steps": None, "global_batch_size": 4, "log_sample_ids": True}
    first = pretrain_config(tmp_path / "run", small_data, 2, tp=2, **changes)
    run = rank_functions.folder(first)
    ranks.run(2, rank_functions.train_with_signal, config=first, step=40, number=signal.SIGUSR2)
    ranks.run(2, rank_functions.train, config=pretrain_config(tmp_path / "run", small_data, 2, **changes))
    ids = [i for row in run.read_metrics(run.samples) for i in row["ids"]]
    epoch = len(set(ids))
    assert len(ids) == 3 * epoch
    for start in range(0, len(ids), epoch):
        assert sorted(ids[start : start + epoch]) == list(range(epoch))
    assert ids[:epoch] != ids[epoch : 2 * epoch]


def test_init_from_begins_with_old_weights(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    old = pretrain_config(tmp_path / "old", small_data, save_every=4)
    before = rank_functions.folder(old)
    ranks.run(1, rank_functions.train, config=old)
    new = pretrain_config(tmp_path / "new", small_data, 2, tp=2, init_from=str(before.path))
    after = rank_functions.folder(new)
    ranks.run(2, rank_functions.train, config=new)
    assert after.read_metrics()[0]["step"] == 1
    valid_old, valid_new = before.read_metrics(before.valid), after.read_metrics(after.valid)
    assert valid_new[0]["loss"] == pytest.approx(valid_old[-1]["loss"], rel=1e-6)
    assert (after.path / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"num_layers": 2}, "no place for"),
        ({"ffn_hidden_size": 64}, "in this model"),
        ({"vocab_size": 384}, "in this model"),
    ],
)
def test_init_from_another_model_is_refused(
    model: dict, words: str, ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    """A smaller model would begin with a corner of the larger one's weights."""
    old = pretrain_config(tmp_path / "old", small_data, steps=2)
    before = rank_functions.folder(old)
    ranks.run(1, rank_functions.train, config=old)
    smaller = replace(old.model, **model)
    new = pretrain_config(tmp_path / "new", small_data, 2, smaller, pp=2, init_from=str(before.path))
    rank_functions.folder(new)
    for said in ranks.run(2, rank_functions.train_refused, config=new):
        assert words in said


def test_fewer_samples_than_a_batch_are_refused(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    config = pretrain_config(tmp_path / "run", small_data, epochs=0.01, steps=None, global_batch_size=64)
    rank_functions.folder(config)
    (said,) = ranks.run(1, rank_functions.train_refused, config=config)
    assert "fewer than one batch of train.global_batch_size=64" in said


def test_validation_is_told_apart_by_language(ranks: RankPool, tmp_path: Path) -> None:
    """The documents' languages come from the Parquet file beside the dataset."""
    folder = make_dataset(tmp_path / "data", languages=["nl", "en", "nl"])
    config = pretrain_config(tmp_path / "run", folder, 2, steps=2, eval_every=1)
    run = rank_functions.folder(config)
    ranks.run(2, rank_functions.train, config=config)
    last = run.read_metrics(run.valid)[-1]
    assert min(last["loss_nl"], last["loss_en"]) < last["loss"] < max(last["loss_nl"], last["loss_en"])
