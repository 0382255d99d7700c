"""A save that dies at any point leaves a run that loads."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import InputError
from data_prep import files
from elm_megatron.checkpoint import save as saving
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.checkpoint.retention import Retention
from elm_megatron.checkpoint.save import CheckpointSaver
from elm_megatron.checkpoint.shards import Reader, Shard, ShardRange
from elm_megatron.model.sharding import ShardLocation
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import committed
from elm_megatron.run.world import World


def shard(value: float) -> Shard:
    """A small matrix of one number."""
    return Shard.whole("w", torch.full((4, 4), value))


def save(run: RunFolder, step: int, point: str | None) -> None:
    """Save a step; die at `point`."""
    if point == "writing":
        saving.write_file = lambda path, shards: (path.write_bytes(b"half"), os._exit(9))
    if point == "before rename":
        Path.rename = lambda self, target: os._exit(9)
    if point == "before latest":
        original = files.write
        files.write = lambda path, text: os._exit(9) if path.name == "latest" else original(path, text)
    saver = CheckpointSaver(run, World.single(run.path), Retention(last=2))
    saver.remove_leftovers()
    saver.save(step, [shard(float(step))], {})
    saver.wait()


@pytest.mark.parametrize(
    ("point", "left"), [("writing", 1), ("before rename", 1), ("before latest", 2), (None, 2)]
)
def test_killed_save_leaves_a_loadable_run(point: str | None, left: int, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    context = multiprocessing.get_context("fork")
    for step, where in ((1, None), (2, point)):
        process = context.Process(target=save, args=(run, step, where))
        process.start()
        process.join()
        assert process.exitcode == (9 if where else 0)
    newest = Checkpoint.open(committed(run)[0])
    newest.verify()
    assert newest.step == left
    assert torch.equal(newest.reader().read("w"), torch.full((4, 4), float(left)))
    save(run, 3, None)  # the next life clears what the killed one left
    assert committed(run)[0].name == "step-00000003"
    assert not list(run.checkpoints.glob(".step-*"))
    assert run.latest_step() == 3


def test_a_rank_writes_several_files_side_by_side(tmp_path: Path) -> None:
    """About as many bytes in each, everything once; a rank that owns nothing writes an empty file."""
    sizes = {"embedding": 64, "fc1": 40, "fc2": 30, "norm": 1}
    shards = [Shard.whole(name, torch.full((n,), float(n))) for name, n in sizes.items()]
    run = RunFolder(tmp_path)
    world = replace(World.single(tmp_path), world_size=2)
    for rank, mine in ((1, []), (0, shards)):
        saver = CheckpointSaver(run, replace(world, rank=rank), Retention(last=2))
        saver.save(1, mine, {})
        saver.wait()
    checkpoint = Checkpoint.open(committed(run)[0])
    checkpoint.verify()
    held = {
        name: [place["name"] for place in entry["places"]]
        for name, entry in checkpoint.manifest["files"].items()
    }
    assert held == {
        "rank-00000-0.safetensors": ["embedding", "norm"],
        "rank-00000-1.safetensors": ["fc1", "fc2"],
        "rank-00001-0.safetensors": [],
    }
    assert {name: checkpoint.reader().read(name).sum() for name in sizes} == {
        name: n * n for name, n in sizes.items()
    }


def may_lower_priority() -> bool:
    """Whether this system lets a thread take the lowest priority."""
    answers = []

    def ask() -> None:
        try:
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
            answers.append(True)
        except (AttributeError, OSError):
            answers.append(False)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return answers[0]


@pytest.mark.skipif(not may_lower_priority(), reason="not Linux, or a container that forbids it")
def test_the_writers_run_where_a_core_is_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, seen = saving.write_file, []

    def write_file(path: Path, shards: list[Shard]) -> dict[str, Any]:
        seen.append(os.sched_getscheduler(threading.get_native_id()))
        return original(path, shards)

    monkeypatch.setattr(saving, "write_file", write_file)
    before = os.sched_getscheduler(0)
    saver = CheckpointSaver(RunFolder(tmp_path), World.single(tmp_path), Retention(last=2))
    cores = set(range(4))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores)
    for blocking in (False, True):
        saver.save(1, [shard(1.0)], {}, blocking)
        saver.wait()
    cores = {0}  # of a rank with one core, which may never idle
    saver.save(1, [shard(1.0)], {})
    saver.wait()
    assert seen == [os.SCHED_IDLE, before, before]
    assert os.sched_getscheduler(0) == before != os.SCHED_IDLE


def die_beside_a_hung_write(run: RunFolder) -> None:
    """A rank that fails while the file system does not answer."""
    saving.write_file = lambda path, shards: time.sleep(600)
    CheckpointSaver(run, World.single(run.path), Retention(last=2)).save(1, [shard(1.0), shard(2.0)], {})
    raise SystemExit(3)


def test_a_rank_that_fails_does_not_wait_for_a_write_that_hangs(tmp_path: Path) -> None:
    """It would keep beating, and nobody would name it."""
    code = "from pathlib import Path; from tests.elm_megatron.checkpoint import test_save as here; "
    code += f"here.die_beside_a_hung_write(here.RunFolder(Path({str(tmp_path)!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], timeout=120)
    assert done.returncode == 3


def test_reader_assembles_any_rectangle(tmp_path: Path) -> None:
    """Two column halves, one of them in two flat ranges, read back as rows."""
    whole = torch.arange(24.0).view(4, 6)
    left, right = whole[:, :3].contiguous().view(-1), whole[:, 3:].contiguous().view(-1)
    first, second = (ShardLocation("w", (4, 6), (0, column), (4, 3)) for column in (0, 3))
    shards = [
        Shard(ShardRange("weight", first, 0, 5), left[:5].clone()),
        Shard(ShardRange("weight", first, 5, 12), left[5:].clone()),
        Shard(ShardRange("weight", second, 0, 12), right),
    ]
    entry = saving.write_file(tmp_path / "rank-00000.safetensors", shards)
    reader = Reader(tmp_path, {"rank-00000.safetensors": entry})
    assert torch.equal(reader.read("w"), whole)
    assert torch.equal(reader.read("w", (1, 2), (2, 3)), whole[1:3, 2:5])
    incomplete = Reader(tmp_path, {"rank-00000.safetensors": {**entry, "places": entry["places"][:2]}})
    with pytest.raises(InputError, match="incomplete"):
        incomplete.read("w")


def test_a_manifest_of_another_step_is_refused(tmp_path: Path) -> None:
    """One flipped bit in its number would skip or repeat batches."""
    run = RunFolder(tmp_path)
    save(run, 4, None)
    manifest = committed(run)[0] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"step": 4', '"step": 5'))
    with pytest.raises(InputError, match="says step 5, the folder's name another"):
        Checkpoint.open(manifest.parent)


def test_stale_life_commits_nothing(tmp_path: Path) -> None:
    """A task that lost its node must not write after a newer life has begun."""
    run = RunFolder(tmp_path)
    run.update(life=["99", 1])
    saver = CheckpointSaver(run, World.single(tmp_path), Retention(last=2))
    saver.save(1, [shard(1.0)], {})
    with pytest.raises(RuntimeError, match="belongs to job 99"):
        saver.wait()
    assert committed(run) == []


def test_a_save_that_commits_late_leaves_the_next_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 is at its second save while rank 0 still waits for the first of rank 2."""
    run, original, second_begun = RunFolder(tmp_path), saving.write_file, threading.Event()

    def write_file(path: Path, shards: list[Shard]) -> dict[str, Any]:
        if "00000002" in path.parent.name and path.name.startswith("rank-00001"):
            second_begun.set()
        if "00000001" in path.parent.name and path.name.startswith("rank-00002"):
            assert second_begun.wait(20)
        return original(path, shards)

    monkeypatch.setattr(saving, "write_file", write_file)
    monkeypatch.setattr(saving, "COMMIT_SECONDS", 10)
    world = replace(World.single(tmp_path), world_size=3)
    savers = [CheckpointSaver(run, replace(world, rank=rank), Retention(last=2)) for rank in range(3)]

    def saves(saver: CheckpointSaver) -> None:
        for step in (1, 2):
            saver.save(step, [shard(float(step))], {})
            saver.wait()

    threads = [threading.Thread(target=saves, args=(saver,)) for saver in savers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [folder.name for folder in committed(run)] == ["step-00000002", "step-00000001"]
    for folder in committed(run):
        Checkpoint.open(folder).verify()


def test_a_file_that_is_not_whole_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, original = RunFolder(tmp_path), saving.write_file

    def write_file(path: Path, shards: list[Shard]) -> dict[str, Any]:
        entry = original(path, shards)
        os.truncate(path, entry["bytes"] - 1)
        return entry

    monkeypatch.setattr(saving, "write_file", write_file)
    saver = CheckpointSaver(run, World.single(tmp_path), Retention(last=2))
    saver.save(1, [shard(1.0)], {})
    with pytest.raises(RuntimeError, match=r"rank-00000-0\.safetensors: \d+ bytes, rank 0 wrote \d+"):
        saver.wait()
    assert committed(run) == []


def test_what_cannot_be_removed_fails_no_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = RunFolder(tmp_path)
    save(run, 1, None)
    save(run, 2, None)
    (run.checkpoints / "step-00000001" / "manifest.json").write_text("not a manifest")

    def busy(folder: Path, *_: object, **__: object) -> None:
        raise OSError(39, "Directory not empty", str(folder))

    monkeypatch.setattr(shutil, "rmtree", busy)
    save(run, 3, None)
    assert run.latest_step() == 3
    assert "an old checkpoint stays" in capsys.readouterr().err
    monkeypatch.undo()
    save(run, 4, None)
    assert [folder.name for folder in committed(run)] == ["step-00000004", "step-00000003"]


def test_a_failed_save_is_told_without_waiting_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def full(path: Path, shards: list[Shard]) -> dict[str, Any]:
        go_on.wait(20)
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(saving, "write_file", full)
    saver = CheckpointSaver(RunFolder(tmp_path), World.single(tmp_path), Retention(last=2))
    saver.save(1, [shard(1.0)], {})
    saver.check()  # under way
    go_on.set()
    saver._thread.join()
    with pytest.raises(InputError, match="the disk is full"):
        saver.check()
