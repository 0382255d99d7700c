"""Rows: order, packing without leaks, lengths, and losses that do not depend on how a batch is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conf.errors import InputError
from data_prep.tokenizer import Tokenizer
from elm_megatron.chat.examples import Encoder, Example, held_out, prompt_key
from elm_megatron.chat.template import Dialogue, Template, Turn
from elm_megatron.run.folder import RunFolder
from elm_megatron.tune.corpus import SftData
from elm_megatron.tune.pairs import PairData
from elm_megatron.tune.rows import Rows
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.tune import configs, rank_functions

CPU = torch.device("cpu")


def examples(sizes: list[int], seed: int = 0) -> list[Example]:
    """Examples of random ids; the second half of each is the answer."""
    rng = np.random.default_rng(seed)
    return [
        Example(rng.integers(4, configs.VOCAB, n).astype(np.int32), np.arange(n) >= n // 2, str(i))
        for i, n in enumerate(sizes)
    ]


def loss_by_example(rows: Rows, batches: list[Any], losses: list[Any]) -> dict[bytes, np.ndarray]:
    """Per-token losses of each example's answer, under the example's last id and length."""
    found = {}
    for batch, loss in zip(batches, losses, strict=True):
        flat_loss, weights = loss.reshape(-1), batch.weights.reshape(-1).numpy()
        positions = batch.position_ids.reshape(-1).numpy()
        starts = np.flatnonzero(positions == 0)
        for start, stop in zip(starts, [*starts[1:], len(positions)], strict=True):
            chosen = weights[start:stop] > 0
            if chosen.any():
                ids = batch.labels.reshape(-1)[start:stop].numpy()[chosen].tobytes()
                found[ids] = flat_loss[start:stop][chosen]
    return found


def test_packed_rows_have_the_losses_of_unpacked_ones_and_do_not_leak(
    ranks: RankPool, base: Path, tmp_path: Path
) -> None:
    config = configs.finetune_config(tmp_path / "x", base, r=4, alpha=8.0)
    sizes = [60, 37, 91, 20, 48, 75, 33, 101, 64, 22]
    data = examples(sizes)
    layout = {"length": 256, "batch": 2, "seed": 1, "pad_id": 3}
    plain, packed = Rows(data, **layout), Rows(data, packing=True, **layout)
    assert len(packed) < len(plain) == len(data)
    changed = [*data[:4], *examples([48], seed=9), *data[5:]]
    other = Rows(changed, packing=True, **layout)
    assert other.rows == packed.rows
    sets = [
        (rows, list(rows.micro_batches(np.arange(len(rows)), 1, 0, 1, CPU)))
        for rows in (plain, packed, other)
    ]
    (found,) = ranks.run(
        1, rank_functions.losses, config=config, batches=[b for _, batches in sets for b in batches]
    )
    measured = []
    for rows, batches in sets:
        measured.append(loss_by_example(rows, batches, found[: len(batches)]))
        found = found[len(batches) :]
    alone, together, touched = measured
    assert alone.keys() == together.keys()
    assert len(alone) == len(data)
    for ids, loss in alone.items():
        np.testing.assert_allclose(together[ids], loss, atol=2e-5)
    kept = together.keys() & touched.keys()
    assert len(kept) == len(data) - 1
    for ids in kept:
        assert np.array_equal(together[ids], touched[ids])


def test_packed_and_unpacked_training_agree(ranks: RankPool, base: Path, tmp_path: Path) -> None:
    """Every example in each step: the same losses, however rows, micro-batches and ranks cut it."""
    losses = {}
    for name, world, changes in [
        ("plain", 1, {"global_batch_size": 31, "micro_batch_size": 31}),
        ("packed", 1, {"packing": True, "seq_length": 256}),
    ]:
        config = configs.finetune_config(
            tmp_path / name, base, world, **{"steps": 4, "r": 8, "alpha": 16.0, **changes}
        )
        if name == "packed":
            rows = len(packed_rows(config, base))
            config.tune.global_batch_size, config.tune.micro_batch_size = rows, 1
        configs.folder_of(config)
        assert ranks.run(world, rank_functions.finetune, config=config) == ["done"] * world
        losses[name] = [row["loss"] for row in RunFolder(config.run.dir).read_metrics()]
    np.testing.assert_allclose(losses["packed"], losses["plain"], atol=1e-5)
    assert losses["plain"][-1] < losses["plain"][0]


def packed_rows(config: Any, base: Path) -> Rows:
    """The training rows of a configuration."""
    from elm_megatron.sources.places import run_config

    data_dir = run_config(RunFolder(base))["data"]["dir"]
    return SftData.read(config, Tokenizer.load(Path(data_dir))).train


@pytest.mark.parametrize("packing", [False, True])
def test_every_row_once_an_epoch(packing: bool) -> None:
    rows = Rows(examples(list(range(10, 133))), 140, 8, 3, 3, packing)
    for epoch in range(3):
        assert sorted(rows.epoch(epoch)) == list(range(len(rows)))
    stream = rows.ids(0, 3 * len(rows))
    assert np.array_equal(stream, np.concatenate([rows.epoch(e) for e in range(3)]))
    assert np.array_equal(rows.ids(57, 40), stream[57:97])
    assert sorted(i for row in rows.rows for i in row) == list(range(123))
    assert all(size <= 140 for size in rows.sizes)


def test_padding_is_grouped_by_length() -> None:
    rng = np.random.default_rng(0)
    rows = Rows(examples(rng.integers(8, 500, 640).tolist()), 512, 16, 3, 3)
    padded = sum(16 * rows.width(rows.ids(step * 16, 16)) for step in range(40))
    assert padded < 1.15 * rows.sizes.sum()


def test_weights_decide_how_often_a_file_is_seen() -> None:
    rows = Rows(examples([20, 21, 22]), 64, 1, 3, 3, draws=[2, 0, 1])
    assert sorted(rows.rows) == [(0,), (0,), (2,)]


def test_a_question_that_stands_in_two_files_falls_on_one_side(corpus: Path, tmp_path: Path) -> None:
    """Also where a small file alone would have nothing below the fraction."""
    questions = [{"instruction": f"Question {n}?", "input": "", "output": f"Answer {n}."} for n in range(400)]
    tokenizer = Tokenizer.load(corpus)
    key = {q["instruction"]: prompt_key(Dialogue((Turn(q["instruction"], "", ""),))) for q in questions}
    small = [q for q in questions if int(key[q["instruction"]][:2], 16) > 200][:6]
    for name, records in (("small", small), ("big", questions)):
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
    files = [str(tmp_path / "small.json"), str(tmp_path / "big.json")]
    config = configs.finetune_config(tmp_path / "x", tmp_path, sft_files=files, seq_length=256)
    found = SftData.read(config, tokenizer)
    train, valid = ({e.key for e in rows.examples} for rows in (found.train, found.valid))
    assert train and valid and not train & valid and train | valid == set(key.values())


def test_weights_that_draw_nothing_are_refused(corpus: Path, tmp_path: Path) -> None:
    config = configs.finetune_config(tmp_path / "x", tmp_path, sft_weights=[0.001])
    with pytest.raises(InputError, match=r"sft\.weights=\[0\.001\]: they draw none of \d+ training examples"):
        SftData.read(config, Tokenizer.load(corpus))


def test_a_tokenizer_without_a_pad_piece_fills_rows_with_eos(corpus: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(corpus)
    tokenizer.pad_id = -1  # as in Llama's own
    rows = SftData.read(configs.finetune_config(tmp_path / "x", tmp_path), tokenizer).train
    (batch,) = rows.micro_batches(np.array([-1]), 1, 0, 1, CPU)
    assert (batch.tokens == tokenizer.eos_id).all() and (batch.weights == 0).all()
    stage = configs.finetune_config(tmp_path / "x", tmp_path, stage="dpo")
    assert PairData.read(stage, tokenizer).train.both.pad_id == tokenizer.eos_id


def test_sequence_parallel_widths() -> None:
    rows = Rows(examples([20, 22, 26]), 64, 3, 3, 3, multiple=4)
    assert rows.width(np.arange(3)) == 28
    (batch,) = rows.micro_batches(np.array([0, -1, 2]), 3, 0, 1, CPU)
    assert batch.tokens.shape == (3, 28)
    assert batch.weights[1].sum() == 0
    assert batch.answers == sum(rows.answers[[0, 2]])


def test_split_by_hash_is_stable() -> None:
    import hashlib

    keys = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(2000)]
    first = held_out(keys, 0.1)
    assert 150 < sum(first) < 250
    assert held_out(keys[:1000], 0.1) == first[:1000]
    assert held_out(["0" * 64, "f" * 64], 0.01) == [True, False]
    assert held_out(["0" * 64, "1" * 64], 0.99) == [True, False]


def write_records(path: Path, records: list[dict[str, str]]) -> str:
    """Records as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def test_answers_alike_or_empty_after_the_cut_are_dropped_and_counted(corpus: Path, tmp_path: Path) -> None:
    """Of instructions and of pairs; what is left out is part of the data's hash."""
    tokenizer, long = Tokenizer.load(corpus), "een heel lang antwoord over Rotterdam en de haven " * 40
    answers = ["goed", "goed", f"{long} eerste", f"{long} tweede", "beter"]
    prompts = ["a", "a", "b", "b", "a"]
    records = [{"instruction": q, "output": a} for q, a in zip(prompts, answers, strict=True)]
    records += [{"instruction": f"vraag {i}", "output": f"antwoord {i}"} for i in range(8)]
    path = write_records(tmp_path / "sft.jsonl", records)
    config = configs.finetune_config(tmp_path / "x", tmp_path, seq_length=128, sft_files=[path])
    found = SftData.read(config, tokenizer)
    assert found.counts["left out, the same as another after the cut"] == 2
    assert len(found.train) + len(found.valid) == len(records) - 2
    pairs = [
        {"prompt": "a", "chosen": f"{long} ja", "rejected": f"{long} nee"},
        {"prompt": "b", "chosen": "ja", "rejected": "nee"},
        {"prompt": "c", "chosen": "ja", "rejected": "nee"},
    ]
    path = write_records(tmp_path / "dpo.jsonl", pairs)
    config = configs.finetune_config(tmp_path / "y", tmp_path, stage="dpo", seq_length=128, dpo_files=[path])
    data = PairData.read(config, tokenizer)
    assert data.counts["left out, both answers alike after the cut"] == 1
    assert len(data.train) + len(data.valid) == 2


def test_an_answer_of_which_the_cut_leaves_blanks_is_dropped(corpus: Path) -> None:
    tokenizer, template = Tokenizer.load(corpus), Template.load("dialogue")
    dialogue = Dialogue((Turn("a", "", "\n\n\n\nhet antwoord"),))
    prompt = len(tokenizer.encode(template.prompt(dialogue, 0)))
    cut = Encoder.of(tokenizer, template, prompt + 3)
    assert cut(dialogue) is None
    assert cut.counts["left out, answer empty after the cut"] == 1
    whole = Encoder.of(tokenizer, template, prompt + 100)
    assert whole(dialogue) is not None and not whole.counts["left out, answer empty after the cut"]
    assert whole(Dialogue((Turn("a", "", ""),))) is None
