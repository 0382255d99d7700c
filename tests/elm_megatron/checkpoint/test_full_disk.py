"""A real file system without room: one sentence, and the last checkpoint is whole."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from conf.errors import InputError
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.checkpoint.retention import Retention
from elm_megatron.checkpoint.save import CheckpointSaver
from elm_megatron.checkpoint.shards import Shard
from elm_megatron.run.folder import Rows, RunFolder, append_jsonl
from elm_megatron.run.steps import committed
from elm_megatron.run.world import World

SIZE = 256 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system of its own needs root")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill(disk: Path) -> Path:
    """Use all that is free."""
    path = disk / "somebody-elses"
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 4096)
    return path


def save(run: RunFolder, step: int, numbers: int) -> None:
    """Save a step of so many numbers."""
    saver = CheckpointSaver(run, World.single(run.path), Retention(last=1))
    saver.remove_leftovers()
    saver.save(step, [Shard.whole("w", torch.full((numbers,), float(step)))], {})
    saver.wait()


def test_a_save_that_does_not_fit(disk: Path) -> None:
    run = RunFolder(disk / "run")
    run.create()
    save(run, 1, 25_000)
    with pytest.raises(
        InputError,
        match=r"run/checkpoints: the disk is full: rank 0's part of the checkpoint of step 2 needs 160,000 "
        r"bytes, [\d,]+ are free; the checkpoint of step 1 is whole",
    ):
        save(run, 2, 40_000)
    assert [folder.name for folder in committed(run)] == ["step-00000001"]
    Checkpoint.open(committed(run)[0]).verify()
    assert run.latest_step() == 1
    run.update(state="failed", reason="the disk is full")  # what was written of step 2 is gone again
    save(run, 3, 25_000)
    assert run.latest_step() == 3


def test_logs_and_records_on_a_full_disk(disk: Path) -> None:
    run = RunFolder(disk / "run")
    run.create()
    run.update(state="running", note="x" * 5000)
    save(run, 1, 10)
    rows, before = Rows(run.metrics), run.run_json.read_bytes()
    rows.append({"step": 1})
    filler = fill(disk)
    with pytest.raises(InputError, match=r"run: the disk is full: a line of metrics\.jsonl needs \d+,?\d* b"):
        for step in range(2, 400):
            rows.append({"step": step, "text": "x" * 100})
    with pytest.raises(InputError, match=r"run: the disk is full: a line of samples\.jsonl"):
        append_jsonl(run.samples, {"step": 1})
    with pytest.raises(InputError, match=r"run: the disk is full: run\.json needs [\d,]+ bytes"):
        run.update(state="failed")
    rows.close()
    assert run.run_json.read_bytes() == before
    Checkpoint.open(committed(run)[0]).verify()
    filler.unlink()
    run.cut_after(1)
    assert run.read_metrics() == [{"step": 1}]
