"""The page of a run: what its files hold is on it, in a real browser too."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from conf.errors import InputError
from elm_megatron.card.run_page import write
from elm_megatron.run.folder import RunFolder
from tests.browser import check_page, needs_browser


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """An invented run of two attempts, with an evaluation of its export beside it."""
    run = RunFolder(tmp_path / "runs" / "invented")
    run.create()
    run.config.write_text(
        "run: {name: invented}\nmodel: {hidden_size: 64}\ntrain: {lr: 0.001, init_from: null}\n"
    )
    rows = [
        {
            "step": step, "tokens": step * 512, "loss": 6.0 - math.log(step), "lr": 1e-3,
            "grad_norm": 1.0 / step,
            "tokens_per_second": 900 + step, "mfu": 0.4, "memory_bytes": 2e9, "slowest_rank": step % 3 == 0,
            "slowest_over_median": 1.1, "time": 1.7e9 + step,
        }
        for step in range(1, 101)
    ]  # fmt: skip
    for row in rows:
        row["slowest_rank"] = int(row["slowest_rank"])
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    valid = [{"step": step, "loss": 6.1 - step / 50, "loss_nl": 6.2, "time": 1.7e9} for step in (0, 50, 100)]
    run.valid.write_text("".join(json.dumps(row) + "\n" for row in valid))
    run.samples.write_text(
        json.dumps({"step": 50, "prompt": "De haven", "text": " <b>van</b> de stad"}) + "\n"
    )
    costs = [
        {"began": 1.7e9, "seconds": 1800.0, "save_seconds": 3.0, "kwh": 0.25},
        {"began": 1.7e9, "seconds": 900},
    ]
    run.update(
        state="done", step=100, tokens=51200, loss=1.4, valid_loss=4.1, seconds=2700.0, kwh=0.25,
        world_size=2, energy_method="RAPL", attempt_costs=costs,
    )  # fmt: skip
    export = RunFolder(tmp_path / "runs" / "export-invented")
    export.create()
    export.update(export={"path": "model", "source": str(run.path)})
    measured = RunFolder(tmp_path / "runs" / "eval-export-invented")
    measured.create()
    measured.config.write_text("source: [export-invented, other]\n")
    group = {"perplexity": 55.5, "bits_per_byte": 1.25}
    tasks = {"mmlu-nl": {"metric": "acc", "value": 0.31}, "old": {"accuracy": 0.5, "items": 3}}
    results = {"export-invented": {"perplexity": {"all": group}, "tasks": tasks}, "other": {"perplexity": {}}}
    (measured.path / "evaluation.json").write_text(json.dumps(results))
    return run


def test_what_the_files_hold_is_on_the_page(run: RunFolder) -> None:
    page = write(run.path).read_text(encoding="utf-8")
    for text in (
        "invented", "51,200", "0.75", "RAPL", "0.50", "2023-11-14", "bits per byte, all", "55.5",
        "mmlu-nl, acc",
        "0.31", "old, accuracy", "train.init_from", "67%", "Validation, nl", "&lt;b&gt;van&lt;/b&gt; de stad",
    ):  # fmt: skip
        assert text in page, text
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<svg") == 8


def test_a_run_that_has_just_begun_and_one_that_is_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "new")
    run.create()
    with pytest.raises(InputError, match=r"holds no run\.json"):
        write(run.path)
    run.update(state="failed", reason="the loss is not finite")
    assert "failed: the loss is not finite" in write(run.path, tmp_path / "x.html").read_text()


@needs_browser
def test_in_a_browser(run: RunFolder) -> None:
    check_page(write(run.path), plots=8)
