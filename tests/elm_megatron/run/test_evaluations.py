"""Which checkpoints are due for evaluation, and which must stay for it."""

from __future__ import annotations

import json
from pathlib import Path

from elm_megatron.checkpoint.retention import Retention
from elm_megatron.run import evaluations
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import committed, step_number
from tests.elm_megatron.checkpoint.saved_steps import saved


def written(run: RunFolder, step: int, kind: str = evaluations.RESULT, text: str | None = None) -> Path:
    path = evaluations.place(run, step, kind)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text or json.dumps({"step": step, "perplexity": {}, "tasks": {}}))
    return path


def steps(run: RunFolder) -> list[int | None]:
    return [step_number(folder.name) for folder in reversed(committed(run))]


def test_what_is_due_is_read_from_the_checkpoints_themselves(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert evaluations.due(run) == [] and evaluations.results(run) == []
    for step in (1, 2, 3, 4):
        saved(run, step, last=100)
    assert evaluations.due(run) == [1, 2, 3, 4]
    written(run, 2)
    written(run, 3, evaluations.FAILED, "tasks=x: no task of that name.\n")
    (evaluations.folder(run) / "step-00000004.json.tmp").write_text("{")
    assert evaluations.due(run) == [1, 4]
    assert [row["step"] for row in evaluations.results(run)] == [2]
    assert evaluations.failures(run) == {3: "tasks=x: no task of that name."}
    mine = evaluations.folder(run) / "step-00000003-keep.failed"
    mine.touch()
    (evaluations.folder(run) / "step-00000002-copy.json").write_text('{"step": 2}')
    assert set(evaluations.failures(run)) == {3} and len(evaluations.results(run)) == 1
    evaluations.try_again(run)
    assert mine.exists()
    assert evaluations.due(run) == [1, 3, 4]


def test_retention_leaves_what_is_being_evaluated_or_waits(tmp_path: Path) -> None:
    run, keep = RunFolder(tmp_path), Retention(last=1, evaluated=True)
    for step in range(1, 4):
        saved(run, step, last=100)
    written(run, 2)
    keep.remove_old(run, committed(run)[0])
    assert steps(run) == [1, 3]
    Retention(last=1).remove_old(run, committed(run)[0])
    assert steps(run) == [3]


def test_what_waits_longest_goes_when_too_many_wait_but_not_under_its_reader(tmp_path: Path) -> None:
    run, keep = RunFolder(tmp_path), Retention(last=1, evaluated=True)
    most = evaluations.MOST_WAITING
    for step in range(1, most + 4):
        saved(run, step, last=100)
    with evaluations.claimed(run, 1):
        keep.remove_old(run, committed(run)[0])
        assert steps(run) == [1, *range(4, most + 4)]
    assert not evaluations.place(run, 1, evaluations.RUNNING).exists()


def test_evaluations_of_steps_that_are_trained_again_are_set_aside(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2, 3):
        saved(run, step, last=100)
        written(run, step)
    evaluations.set_aside(run, 2)
    assert [row["step"] for row in evaluations.results(run)] == [1, 2]
    assert evaluations.due(run) == [3]
    assert len(list((evaluations.folder(run) / evaluations.LOST).iterdir())) == 1
