"""Which checkpoints a save removes."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from data_prep import files
from elm_megatron.checkpoint.manifest import SCHEMA
from elm_megatron.checkpoint.retention import Retention, needed_steps, remove
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import committed, leftovers
from tests.elm_megatron.checkpoint.saved_steps import saved


def test_retention_keeps_the_last_every_nth_and_the_best(tmp_path: Path) -> None:
    folders = []
    for step, loss in [(10, 5.0), (20, 3.0), (30, 4.0), (40, None), (50, 4.5)]:
        folder = tmp_path / f"step-{step:08d}"
        folder.mkdir()
        manifest = {"schema": SCHEMA, "step": step, "valid_loss": loss, "files": {}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        folders.insert(0, folder)
    names = {int(f.name[-2:]) for f in Retention(last=2, every=30, best=True).to_keep(folders)}
    assert names == {50, 40, 30, 20}
    assert {f.name[-2:] for f in Retention(last=1).to_keep(folders)} == {"50"}


def test_steps_that_adapters_need_stay(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "base")
    run.create()
    for step in (1, 2):
        saved(run, step, last=1)

    def tuned(name: str, base: Path, step: int | None) -> RunFolder:
        other = RunFolder(tmp_path / "runs" / name)
        other.create()
        other.update(state="done", base=str(base), base_step=step)
        return other

    adapter = tuned("finetune", run.path, 2)
    tuned("of-another-base", tmp_path / "runs" / "of-another-base", 3)
    tuned("of-an-export", run.path, None)
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "notes" / "run.json").write_text("[1]")
    for step in (3, 4, 5):
        saved(run, step, last=1)
    assert [folder.name for folder in committed(run)] == ["step-00000005", "step-00000002"]
    assert needed_steps(run) == {2}
    adapter.update(base="/moved/away/runs/base")  # the project was moved
    assert needed_steps(run) == {2}
    shutil.rmtree(adapter.path)
    saved(run, 6, last=1)
    assert [folder.name for folder in committed(run)] == ["step-00000006"]


def test_what_cannot_be_read_now_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    folders = [saved(run, step) for step in (1, 2, 3)]
    original = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.parent == folders[0]:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return original(path)

    monkeypatch.setattr(files, "READ_PAUSES", ())
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    saved(run, 4, last=1)
    assert [folder.name for folder in committed(run)] == ["step-00000004", "step-00000001"]


def test_a_removal_that_is_cut_off_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    saved(run, 1)

    def killed(folder: Path) -> None:
        (next(folder.glob("rank-*"))).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove(run.checkpoints / "step-00000001")
    assert committed(run) == [] and len(leftovers(run)) == 1
