"""Which checkpoint a run goes on from."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from conf.errors import InputError
from data_prep import files
from elm_megatron.checkpoint.load import newest_verified
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import committed
from elm_megatron.run.world import World
from tests.elm_megatron.checkpoint.saved_steps import saved


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    """A run of one rank with two checkpoints."""
    run = RunFolder(tmp_path / "run")
    for step in (1, 2):
        saved(run, step)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield run
    dist.destroy_process_group()


def newest(run: RunFolder) -> int | None:
    """The step it goes on from."""
    found = newest_verified(run, World.single(run.path), torch.device("cpu"))
    return found and found.step


def test_a_read_error_sets_nothing_aside(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    before = sorted(path.name for path in run.checkpoints.iterdir())
    monkeypatch.setattr(files, "READ_PAUSES", (0.0,))
    monkeypatch.setattr(files, "sha256", unreadable)
    with pytest.raises(files.Unreadable, match=r"step-00000002/.*Input/output error"):
        newest(run)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == before
    monkeypatch.undo()
    assert newest(run) == 2


def test_damage_is_walked_past(run: RunFolder, capsys: pytest.CaptureFixture) -> None:
    (run.checkpoints / "step-00000002" / "manifest.json").write_text("{")
    assert newest(run) == 1
    assert "checkpoint passed over" in capsys.readouterr().err
    assert (run.checkpoints / "damaged-step-00000002").is_dir()
    assert run.latest_step() == 1


def test_a_step_without_its_manifest_is_named(run: RunFolder, capsys: pytest.CaptureFixture) -> None:
    (run.checkpoints / "step-00000002" / "manifest.json").unlink()
    assert newest(run) == 1
    assert "step-00000002: has no manifest and is passed over" in capsys.readouterr().err


def test_all_damaged_or_gone_is_refused_each_time(run: RunFolder) -> None:
    for folder in committed(run):
        (folder / "rank-00000-0.safetensors").write_bytes(b"x")
    for _ in range(2):
        with pytest.raises(InputError, match="none of its 2 checkpoints is intact"):
            newest(run)
    for folder in committed(run):
        folder.rename(folder.with_name(f"damaged-{folder.name}"))
    with pytest.raises(InputError, match="was saved at step 2"):
        newest(run)


def test_a_replacement_that_was_cut_off_is_finished(run: RunFolder) -> None:
    """On a file system that cannot exchange two names: killed between the two renames."""
    folder = run.checkpoints / "step-00000002"
    folder.rename(run.checkpoints / ".step-00000002.old.tmp")
    assert newest(run) == 2
