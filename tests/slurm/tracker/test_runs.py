"""Our own runs join the list with care: no link, no pipe, no file of a stranger."""

from __future__ import annotations

import getpass
import json
import os
from pathlib import Path

import pytest

from elm_megatron.run.folder import RunFolder, append_jsonl
from slurm.tracker import listing, poll, runs
from slurm.tracker.rates import Rates

ME = getpass.getuser()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run at step 40 of 100 with a step time of 2 s, in the suite's own format."""
    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.create()
    folder.update(state="running", step=30, steps=100, kwh=1.5)
    for step in range(1, 41):
        seconds = 20.0 if step == 1 else 2.0
        append_jsonl(
            folder.metrics,
            {
                "step": step,
                "loss": 5 - step / 20,
                "tokens_per_second": 900.0,
                "step_seconds": seconds,
                "time": 1.7e9,
            },
        )
    return folder


def test_a_run_is_joined(run: RunFolder) -> None:
    found = runs.progress_of(f"elm:{run.path}", ME)
    assert (found.step, found.steps, found.loss, found.kwh) == (40, 100, 3.0, 1.5)
    assert found.step_seconds == 2.0, "the median is not moved by the slow first step"
    assert found.seconds_left == 120


def test_the_list_shows_the_run(run: RunFolder, fake_slurm, rows) -> None:
    fake_slurm.answer(
        [rows(1, UserName=ME, State="RUNNING", Comment=f"elm:{run.path}"), rows(2, Comment="elm:/no/such")]
    )
    rates = Rates(Path("/nowhere"))
    found = listing.rows(poll.picture(), listing.Filters(), rates)
    text = listing.grid(found, rates)
    assert "40/100" in text
    assert "3.000" in text
    assert listing.VALUES["steps"](found[0]) == 100
    assert listing.VALUES["run_ends"](found[0]) is not None
    assert found[1].run is None


def test_a_line_being_written_is_left_out(run: RunFolder) -> None:
    with run.metrics.open("a") as file:
        file.write('{"step": 41, "loss": 9')
    assert runs.progress_of(f"elm:{run.path}", ME).step == 40


def test_a_long_file_is_read_from_its_end(run: RunFolder) -> None:
    for step in range(41, 5000):
        append_jsonl(run.metrics, {"step": step, "loss": 1.0, "step_seconds": 1.0})
    assert run.metrics.stat().st_size > 2 * runs.TAIL_BYTES
    found = runs.progress_of(f"elm:{run.path}", ME)
    assert (found.step, found.step_seconds) == (4999, 1.0)


@pytest.mark.parametrize("comment", ["", "note", "elm:relative", "elm:", "elm:/a\0b"])
def test_another_comment_is_no_run(comment: str) -> None:
    assert runs.progress_of(comment, ME) is None


def test_a_pipe_a_link_and_a_strangers_file_are_not_read(run: RunFolder, tmp_path: Path) -> None:
    assert runs.progress_of(f"elm:{run.path}", "nobody") is None
    real = run.run_json.rename(tmp_path / "real.json")
    os.mkfifo(run.run_json)
    assert runs.progress_of(f"elm:{run.path}", ME) is None
    run.run_json.unlink()
    run.run_json.symlink_to(real)
    assert runs.progress_of(f"elm:{run.path}", ME) is None
    run.run_json.unlink()
    run.run_json.write_text("x" * (runs.MOST_BYTES + 1))
    assert runs.progress_of(f"elm:{run.path}", ME) is None


def test_values_of_a_wrong_type_are_unknown(run: RunFolder) -> None:
    record = json.loads(run.run_json.read_text()) | {"steps": "many", "kwh": [1]}
    run.run_json.write_text(json.dumps(record))
    found = runs.progress_of(f"elm:{run.path}", ME)
    assert (found.steps, found.kwh, found.seconds_left) == (None, None, None)
