"""Bytes and files of a run against what there is room for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conf.errors import InputError
from conf.schema.cluster import SiteConfig
from conf.schema.train import TrainConfig
from elm_megatron.planner import storage
from elm_megatron.run.folder import RunFolder
from tests.elm_megatron.checkpoint.saved_steps import saved

TRAIN = TrainConfig(steps=1000, save_every=100, log_every=10, keep_last=3, keep_best=False)


def has_free(monkeypatch: pytest.MonkeyPatch, size: int, files: int) -> None:
    """Let the file system have so much free."""
    values = (4096, 4096, 10**9, size // 4096, size // 4096, 10**9 if files else 0, files, files, 0, 255)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(values))


@pytest.mark.parametrize(
    ("changes", "steps", "checkpoints"),
    [
        ({}, 1000, 4),
        ({}, 150, 3),  # two are made
        ({}, None, 4),
        ({"keep_best": True}, 1000, 5),
        ({"keep_every": 200}, 1000, 9),
    ],
)
def test_how_many_checkpoints_there_are_at_once(
    changes: dict[str, int], steps: int | None, checkpoints: int
) -> None:
    train = TrainConfig(**{**vars(TRAIN), **changes})
    wanted = storage.need(1_000_000, train, steps, 4)
    assert wanted.checkpoints == checkpoints
    assert wanted.bytes == pytest.approx(12_000_000 * checkpoints, rel=0.2)
    assert wanted.files == checkpoints * 9 + 8 + storage.RUN_FILES


def test_what_is_written_is_what_was_said(tmp_path: Path) -> None:
    """A real checkpoint: its bytes, and its files."""
    folder = saved(RunFolder(tmp_path), 1)
    size, count = storage.used(tmp_path)
    assert (size, count) == (sum(path.stat().st_size for path in folder.iterdir()), 2)
    one = storage.need(16, TRAIN, 100, 1)
    assert count <= (one.files - storage.RUN_FILES - storage.LOG_FILES) / one.checkpoints
    assert size <= one.checkpoint_bytes


def test_what_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = storage.need(1_000_000_000, TRAIN, 1000, 8)  # 48 GB
    run = tmp_path / "runs" / "big"
    has_free(monkeypatch, 60 * 10**9, 1000)
    there = storage.require_fits(wanted, run, SiteConfig())
    assert storage.describe(wanted, there).startswith(
        "48.0 GB: 4 checkpoints of 12.0 GB and logs, 96 files; of 60"
    )
    has_free(monkeypatch, 40 * 10**9, 1000)
    with pytest.raises(InputError, match=r"will write 48\.0 GB \(4 check.* 12\.0 GB\), and 40\.0 GB is free"):
        storage.require_fits(wanted, run, SiteConfig())
    has_free(monkeypatch, 60 * 10**9, 50)
    with pytest.raises(InputError, match="will write 96 files, and 50 can be made"):
        storage.require_fits(wanted, run, SiteConfig())
    has_free(monkeypatch, 60 * 10**9, 0)  # a file system that does not count its files
    storage.require_fits(wanted, run, SiteConfig())


def test_a_resumed_run_has_part_of_it_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    with (folder / "rank-00000-0.safetensors").open("wb") as file:
        file.truncate(36 * 10**9)  # three checkpoints' worth
    wanted = storage.need(1_000_000_000, TRAIN, 1000, 8)
    has_free(monkeypatch, 13 * 10**9, 1000)
    storage.require_fits(wanted, tmp_path, SiteConfig())


def test_the_quotas_of_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_free(monkeypatch, 10**15, 10**9)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "runs").mkdir(parents=True)
    (tmp_path / "scratch").mkdir()
    site = SiteConfig(home_gb=30, home_files=90, scratch=str(tmp_path / "scratch"), scratch_files=95)
    wanted = storage.need(1_000_000_000, TRAIN, 1000, 8)
    with pytest.raises(InputError, match=r"and 32\.2 GB is the quota of .*home"):
        storage.require_fits(wanted, tmp_path / "home" / "runs" / "x", site)
    with pytest.raises(InputError, match=r"96 files, and 95 can be made on .*scratch"):
        storage.require_fits(wanted, tmp_path / "scratch" / "x", site)
    storage.require_fits(wanted, tmp_path / "elsewhere", site)


def test_when_scratch_forgets(tmp_path: Path) -> None:
    site = SiteConfig(scratch=str(tmp_path), scratch_days=14)
    assert storage.expiry(tmp_path / "none", site) is None
    (tmp_path / "data").mkdir()
    for name, day in (("new", 20), ("old", 10)):
        path = tmp_path / "data" / name
        path.write_text(name)
        os.utime(path, (day * 86400, day * 86400))
    date = storage.expiry(tmp_path / "data", site)
    assert date is not None and (date.month, date.day) == (1, 25)  # day 10 is January 11
    assert storage.expiry(tmp_path / "data", SiteConfig()) is None
