"""Traces of the steps that are asked for, and the page that sums them up."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from conf.errors import InputError
from conf.schema.train import Profile
from elm_megatron.engine.profiler import covered, summary
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool


def test_every_rank_leaves_a_trace_of_the_steps(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    """And trains as it does without."""
    losses = []
    for name, profile in (("plain", None), ("run", Profile([2, 3]))):
        config = pretrain_config(tmp_path / name, small_data, 2, tp=2, steps=4, profile=profile)
        run = rank_functions.folder(config)
        assert ranks.run(2, rank_functions.train, config=config) == ["done"] * 2
        losses.append([row["loss"] for row in run.read_metrics()])
    assert losses[0] == losses[1]
    assert not (tmp_path / "plain" / "profile").exists()
    folder = run.path / "profile"
    for rank in (0, 1):
        packed = (folder / f"steps-2-3-rank-{rank:05d}.json.gz").read_bytes()
        trace = json.loads(gzip.decompress(packed))
        names = {event.get("name") for event in trace["traceEvents"]}
        assert "aten::mm" in names and any("gloo" in str(name) for name in names)
    page = (folder / "summary.md").read_text(encoding="utf-8")
    assert page.startswith("# Steps 2 to 3\n") and "| 1 |" in page and "`aten::mm`" in page


def test_a_run_that_ends_before_writes_what_it_has(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    config = pretrain_config(tmp_path / "run", small_data, steps=3, profile=Profile([3, 9]))
    run = rank_functions.folder(config)
    assert ranks.run(1, rank_functions.train, config=config) == ["done"]
    assert (run.path / "profile" / "summary.md").read_text(encoding="utf-8").startswith("# Steps 3 to 3\n")


def test_time_is_counted_once() -> None:
    assert covered([(0, 2), (1, 3), (5, 6), (5.5, 5.8)]) == 4
    assert covered([]) == 0
    one = {"seconds": 2.0, "busy": 1.5, "communication": 0.5, "idle": 0.5}
    page = summary([one], [("mm", 3, 1.0)], 10, 12)
    assert "| 0 | 2.000 | 75.0% | 25.0% | 25.0% |" in page and "| `mm` | 3 | 1.0000 | 50.0% |" in page


@pytest.mark.parametrize("steps", [[3], [5, 4], [1, 2, 3], []])
def test_steps_that_are_no_span_are_refused(steps: list[int], tmp_path: Path, small_data: Path) -> None:
    with pytest.raises(InputError, match=r"train\.profile\.steps="):
        pretrain_config(tmp_path / "run", small_data, profile=Profile(steps))
