"""Only folders with exactly a step's name are the suite's; what is beside them is left alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conf.errors import InputError
from data_prep import files
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.run import steps
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.resume import require_known_steps, saved_step
from elm_megatron.run.steps import committed, incomplete, step_folder
from tests.elm_megatron.checkpoint.saved_steps import saved


def beside(run: RunFolder) -> dict[str, Path]:
    """Copies of a checkpoint as people make them; each is somebody's own."""
    original, folder = run.checkpoints / "step-00000002", run.checkpoints
    copies = ["step-00000002-keep", "old-step-00000002", "step-00000002.bak", "step-2", "step-000000002"]
    copies += ["step-00000002 (copy)", "STEP-00000002", "step-٠٠٠٠٠٠٠٢", "step-0000000x", "step-+0000009"]
    copies += [".step-00000002", ".step-00000002.keep", "damaged-step-00000002", "step-"]
    for name in copies:
        shutil.copytree(original, folder / name)
    (folder / "step-00000009").symlink_to(original.name)
    (folder / "step-00000008").symlink_to("nowhere")
    (folder / "step-00000007").write_text("a file")
    (folder / "step-00000002.tar").write_bytes(b"archive")
    return {path.name: path for path in folder.iterdir()}


def test_copies_beside_the_originals_are_left_alone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2):
        saved(run, step)
    names = beside(run)
    assert [folder.name for folder in committed(run)] == ["step-00000002", "step-00000001"]
    assert incomplete(run) == [] and steps.leftovers(run) == []
    assert step_folder(run).name == "step-00000002"
    with pytest.raises(InputError, match="no checkpoint of step 9; it has 1, 2"):
        step_folder(run, 9)
    for step in (3, 4, 5):
        saved(run, step, last=1)
    left = {path.name for path in run.checkpoints.iterdir()}
    assert left == (names.keys() - {"step-00000001", "step-00000002"}) | {"step-00000005"}
    saved(run, 9, last=1)  # a link in the way of a step is replaced, not followed
    Checkpoint.open(run.checkpoints / "step-00000009").verify()
    assert not (run.checkpoints / "step-00000009").is_symlink()


def test_steps_beyond_eight_digits(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (99_999_999, 100_000_000):
        saved(run, step)
    assert [folder.name for folder in committed(run)] == ["step-100000000", "step-99999999"]


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    saved(run, 1)
    monkeypatch.setattr(files, "READ_PAUSES", (0.0,))

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(steps.os, "scandir", refused)
    with pytest.raises(files.Unreadable, match=r"checkpoints: cannot be read \(Permission denied\), 2 times"):
        committed(run)


@pytest.mark.parametrize("purged", ["checkpoints", "manifests", "all but latest", "checkpoints and run.json"])
@pytest.mark.parametrize("first_version", [False, True])
def test_a_purged_run_is_not_started_over(purged: str, first_version: bool, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.update(state="running", step=0)
    require_known_steps(run)
    saved(run, 200)
    run.metrics.write_text('{"step": 200, "loss": 1.0}\n')
    run.update(state="cancelled", step=200)
    if first_version:
        record = {key: value for key, value in run.read().items() if key != "checkpoint_step"}
        run.run_json.unlink()
        run.update(**record)
    if purged == "manifests":
        (run.checkpoints / "step-00000200" / "manifest.json").unlink()
    elif purged == "all but latest":
        shutil.rmtree(run.checkpoints / "step-00000200")
    else:
        shutil.rmtree(run.checkpoints)
    if purged.endswith("run.json"):
        run.run_json.unlink()
    with pytest.raises(InputError, match=r"saved at step 200, .*step-00000200/ .*train.init_from"):
        require_known_steps(run)


def test_a_run_that_was_never_saved_begins_again(tmp_path: Path) -> None:
    """Killed before its first save, or in it: there is nothing to go on from."""
    run = RunFolder(tmp_path)
    run.update(state="running", step=0, checkpoint_step=0)
    run.metrics.write_text('{"step": 150, "loss": 1.0}\n')
    run.update(step=200)
    assert saved_step(run) == 0
    require_known_steps(run)
    other = RunFolder(tmp_path / "first-version")
    other.create()
    other.update(state="running", step=200)
    (other.checkpoints / ".step-00000200.77-0.tmp").mkdir(parents=True)
    require_known_steps(other)
