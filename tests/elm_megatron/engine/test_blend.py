"""Several datasets by weight: shares, order, resume under another layout, and what is refused."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import InputError
from conf.plain import plain
from conf.schema.data import BlendPart, TrainingData
from data_prep.dataset import open_parts
from data_prep.manifest import Manifest
from elm_megatron.engine import samples
from elm_megatron.engine.samples import Samples, interleaved
from elm_megatron.run.resume import check_resume
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.small_dataset import make_dataset


class Part(list):
    """Stands for a dataset of a few samples."""


def blend(*sizes: int, weights: list[float]) -> Samples:
    """A blend of parts that hold their own number."""
    return Samples([Part([i] * n) for i, n in enumerate(sizes)], weights, 3, [])


def test_each_place_goes_to_the_part_furthest_behind() -> None:
    """Megatron's rule in plain Python, over the first places; and nowhere is a share off by two."""
    shares = np.array([0.5, 0.3, 0.2])
    parts, turns = interleaved(shares)
    counts = [0, 0, 0]
    for place in range(500):
        behind = [share * max(place, 1) - count for share, count in zip(shares, counts, strict=True)]
        expected = behind.index(max(behind))
        assert (parts[place], turns[place]) == (expected, counts[expected])
        counts[expected] += 1
    for part, share in enumerate(shares):
        seen = np.cumsum(parts == part)
        assert np.abs(seen - share * np.arange(1, len(parts) + 1)).max() < 2


def test_order_does_not_depend_on_where_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several periods of the pattern and many epochs of the smaller part."""
    monkeypatch.setattr(samples, "PERIOD", 64)
    mixed = blend(50, 7, weights=[3, 1])
    whole = mixed.ids(0, 400)
    pieces = [mixed.ids(at, n) for at, n in ((0, 13), (13, 100), (113, 1), (114, 286))]
    assert np.concatenate(pieces).tolist() == whole.tolist()
    origin = mixed.part_of(whole)
    assert np.bincount(origin).tolist() == mixed.drawn(400) == [300, 100]
    assert [mixed[int(i)] for i in whole] == origin.tolist()
    for part, size in ((0, 50), (1, 7)):
        mine = whole[origin == part] - mixed.first_ids[part]
        for start in range(0, len(mine) - size + 1, size):
            assert sorted(mine[start : start + size]) == list(range(size))


def test_one_dataset_keeps_the_order_it_had() -> None:
    from elm_megatron.engine.data import sample_ids

    assert blend(10, weights=[1.0]).ids(7, 30).tolist() == sample_ids(7, 30, 10, 3).tolist()


def parts_of(data: TrainingData, folder: Path) -> list[Manifest]:
    data.check()
    return open_parts(data, Manifest.load(folder), 64)


def test_refusals(small_data: Path, tmp_path: Path) -> None:
    """Each names its key."""
    other = make_dataset(tmp_path / "other")
    manifest = other / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"' + "0" * 64, '"1' + "0" * 63))
    short = make_dataset(tmp_path / "short", train_tokens=60)
    wrong: list[tuple[list[BlendPart], str]] = [
        ([BlendPart(str(small_data)), BlendPart(str(other))], r"blend\[1\]\.dir=.*another tokenizer"),
        ([BlendPart(str(small_data)), BlendPart(str(small_data), 2)], r"blend\[1\]\.dir=.*twice"),
        ([BlendPart(str(small_data), 0.0)], r"blend\[0\]\.weight=0\.0: must be above 0"),
        ([BlendPart(str(short))], r"blend\[0\]\.dir=.*60 tokens"),
        ([BlendPart(str(tmp_path / "nowhere"))], "nowhere.*does not exist"),
    ]
    for parts, message in wrong:
        with pytest.raises(InputError, match=message):
            parts_of(TrainingData(str(small_data), parts), small_data)
    with pytest.raises(InputError, match=r"blend\[1\]\.weight=1: is a share below 1 in"):
        blend(5, 5, weights=[1e9, 1])
    with pytest.raises(InputError, match=r"train\.epochs=2: an epoch is of one dataset"):
        pretrain_config(
            tmp_path / "run", small_data, blend=[BlendPart(str(small_data))], steps=None, epochs=2
        )


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller dataset of the same tokenizer."""
    return make_dataset(tmp_path_factory.mktemp("second") / "small", train_tokens=2000)


def test_blend_goes_on_where_it_was(ranks: RankPool, small_data: Path, second: Path, tmp_path: Path) -> None:
    """Cut and resumed over other ranks, the same samples come from the same datasets; run.json counts."""
    changes: dict[str, Any] = {
        "blend": [BlendPart(str(small_data), 3), BlendPart(str(second), 1)],
        "log_sample_ids": True,
    }
    whole, cut = (pretrain_config(tmp_path / name, small_data, 2, **changes) for name in ("whole", "cut"))
    uncut, run = rank_functions.folder(whole), rank_functions.folder(cut)
    ranks.run(2, rank_functions.train, config=whole)
    ranks.run(2, rank_functions.train_with_signal, config=cut, step=4, number=signal.SIGUSR2)
    assert [part["drawn"] for part in run.read()["blend"]] == [24, 8]
    resumed = pretrain_config(tmp_path / "cut", small_data, 2, tp=2, **changes)
    ranks.run(2, rank_functions.train, config=resumed)
    rows = run.read_metrics(run.samples)
    assert rows == uncut.read_metrics(uncut.samples)
    assert sum(sum(row["datasets"]) for row in rows) == 20
    for mine, reference in zip(run.read_metrics(), uncut.read_metrics(), strict=True):
        assert mine["loss"] == pytest.approx(reference["loss"], rel=1e-5)
    parts = run.read()["blend"]
    assert [part["drawn"] for part in parts] == [60, 20]
    assert [part["manifest_sha256"] for part in parts] == [
        Manifest.load(d).sha256 for d in (small_data, second)
    ]
    changes["blend"] = [BlendPart(str(small_data), 3), BlendPart(str(second), 2)]
    other = pretrain_config(tmp_path / "cut", small_data, 2, tp=2, **changes)
    with pytest.raises(InputError, match=r"data\.blend="):
        check_resume(plain(resumed), plain(other), "run")


def test_a_part_that_changed_is_refused_on_resume(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    part = make_dataset(tmp_path / "part", train_tokens=2000)
    changes = {"blend": [BlendPart(str(part))], "save_every": 4}
    config = pretrain_config(tmp_path / "run", small_data, **changes)
    rank_functions.folder(config)
    ranks.run(1, rank_functions.train_with_signal, config=config, step=2, number=signal.SIGUSR2)
    make_dataset(part, train_tokens=3000)
    with pytest.raises(RuntimeError, match="its checkpoint has another blend"):
        ranks.run(1, rank_functions.train, config=config)
