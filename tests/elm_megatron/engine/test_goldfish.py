"""Goldfish loss: which tokens are left out, the same in every layout, and what a resumed run may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import InputError
from conf.plain import plain
from elm_megatron.engine.goldfish import BASE, Goldfish
from elm_megatron.run.resume import check_resume
from tests.elm_megatron.configs import loop, pretrain_config, small_model
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.tune.configs import finetune_config

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "tp2dp2": (4, {"tp": 2}),
    "cp2": (2, {"cp": 2}),
    "pp2vpp2": (2, {"pp": 2, "vpp": 2}),
    "larger micro-batches": (1, {"micro_batch_size": 8}),
}


def plain_mask(row: list[int], k: int, context: int) -> list[bool]:
    """The definition, one token at a time with Python's own numbers."""
    modulus = 1 << 64
    kept = []
    for t in range(len(row)):
        if t + 1 < context:
            kept.append(True)
            continue
        before = row[t + 1 - context : t + 1]
        mixed = sum((token + 1) * pow(BASE, n, modulus) for n, token in enumerate(before)) % modulus
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = ((mixed ^ (mixed >> shift)) * factor) % modulus
        kept.append((mixed ^ (mixed >> 31)) % k != 0)
    return kept


@pytest.mark.parametrize(("k", "context", "length"), [(2, 13, 64), (4, 13, 200), (50, 1, 64), (3, 64, 64)])
def test_the_mask_is_its_definition(k: int, context: int, length: int) -> None:
    tokens = np.random.default_rng(k).integers(0, 70_000, (3, length))
    found = Goldfish(k, context).kept(tokens)
    assert found.tolist() == [plain_mask(row, k, context) for row in tokens.tolist()]


def test_a_passage_loses_the_same_tokens_everywhere() -> None:
    """Whatever comes before it, and one token in k of all."""
    rng, goldfish = np.random.default_rng(0), Goldfish(4, 13)
    passage = rng.integers(0, 32_000, 5_000)
    alone = goldfish.kept(passage[None])[0]
    for start in (1, 13, 977):
        inside = goldfish.kept(np.concatenate([rng.integers(0, 32_000, start), passage])[None])[0]
        assert (inside[start + 12 :] == alone[12:]).all()
    assert 0.22 < 1 - alone.mean() < 0.28
    assert goldfish.kept(passage[None, :12]).all()  # shorter than the context


@pytest.fixture(scope="module")
def one_rank(ranks: RankPool, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    config = pretrain_config(tmp_path_factory.mktemp("runs") / "one", small_data, steps=3, goldfish=3)
    return trained(ranks, config)


def trained(ranks: RankPool, config: Any) -> dict[str, Any]:
    """Losses, gradient norms and the first validation of a run."""
    run = rank_functions.folder(config)
    ranks.run(config.world_size, rank_functions.train, config=config)
    rows = run.read_metrics()
    first = run.read_metrics(run.path / "valid.jsonl")[0]
    return {**{key: [row[key] for row in rows] for key in ("loss", "grad_norm")}, "valid": first["loss"]}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_agree(
    name: str, ranks: RankPool, small_data: Path, tmp_path: Path, one_rank: dict[str, Any]
) -> None:
    """Each token weighs the same, though ranks leave out unlike numbers."""
    world, changes = LAYOUTS[name]
    config = pretrain_config(tmp_path / "run", small_data, world, steps=3, goldfish=3, **changes)
    found = trained(ranks, config)
    assert found["loss"] == pytest.approx(one_rank["loss"], rel=1e-5)
    assert found["grad_norm"] == pytest.approx(one_rank["grad_norm"], rel=1e-4)


def test_training_changes_and_validation_counts_every_token(
    ranks: RankPool, small_data: Path, tmp_path: Path, one_rank: dict[str, Any]
) -> None:
    every = trained(ranks, pretrain_config(tmp_path / "run", small_data, steps=3))
    assert every["valid"] == pytest.approx(one_rank["valid"], rel=1e-6)
    assert every["loss"] != pytest.approx(one_rank["loss"], rel=1e-5)


def test_it_is_part_of_the_run(small_data: Path, tmp_path: Path) -> None:
    """Another k or context is another run; a run older than the option goes on."""
    with_it = plain(pretrain_config(tmp_path, small_data, goldfish=3))
    without = plain(pretrain_config(tmp_path, small_data))
    old = {**without, "train": {k: v for k, v in without["train"].items() if not k.startswith("goldfish")}}
    check_resume(old, without, "runs/a")
    for before, after in ((old, with_it), (without, with_it), (with_it, without)):
        with pytest.raises(InputError, match=r"train\.goldfish=\d"):
            check_resume(before, after, "runs/a")
    other = plain(pretrain_config(tmp_path, small_data, goldfish=3, goldfish_context=20))
    with pytest.raises(InputError, match=r"train\.goldfish_context=20"):
        check_resume(with_it, other, "runs/a")


def test_refusals() -> None:
    for changes, sentence in (
        ({"goldfish": 1}, r"goldfish=1: would leave out every token; give 0 or at least 2"),
        ({"goldfish": -2}, r"goldfish=-2: must be at least 0"),
        ({"goldfish": 3, "goldfish_context": 65, "seq_length": 64}, r"goldfish_context=65 is longer than"),
    ):
        with pytest.raises(InputError, match=sentence):
            loop(**{"steps": 1, "seq_length": 64, **changes}).check(small_model(), 1)


@pytest.mark.parametrize("key", ["goldfish", "goldfish_context"])
def test_tuning_has_none(key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"tune\.{key}=4: is for pretraining alone"):
        finetune_config(tmp_path / "run", tmp_path / "base", **{key: 4})
