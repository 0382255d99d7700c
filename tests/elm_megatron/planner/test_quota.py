"""Quotas are read from stand-ins of lfs and quota, in the forms that these tools print."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import InputError
from conf.schema.cluster import SiteConfig
from elm_megatron.planner import quota, storage

LUSTRE = "     /gpfs/scratch 1000 0 3000 - 20 0 50 -\n"
LONG = "/a/very/long/name/of/a/file/system\n  2500*   2000    3000  6days   20   0    50   -\n"
NO_LIMIT = "     /gpfs/scratch 1000 0 0 - 20 0 0 -\n"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has all the tools there are."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def stand_in(folder: Path, name: str, says: str, status: int = 0) -> None:
    (folder / name).write_text(f"#!/bin/sh\ncat <<'END'\n{says}END\nexit {status}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("says", "left"),
    [
        (LUSTRE, (2000 * 1024, 30)),
        (LONG, (0, 30)),
        (NO_LIMIT, None),
        ("", None),
        ("lfs: no such thing\n", None),
    ],
)
def test_lustre(says: str, left: tuple[int, int] | None, tools: Path, tmp_path: Path) -> None:
    stand_in(tools, "lfs", says)
    found = quota.left(tmp_path)
    assert {(one.bytes, one.files) for one in found} == ({left} if left else set())
    assert all(one.basis.startswith("lfs quota -") for one in found)


def test_the_line_of_the_folder_counts(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\n/dev/b {tmp_path} ext4 rw 0 0\n")
    monkeypatch.setattr(quota, "MOUNTS", mounts)
    head = "Filesystem blocks quota limit grace files quota limit grace\n"
    lines = f"/ 10 0 20 0 1 0 2 0\n{tmp_path} 100* 90 200 1700000000 7 10 20 0\n"
    stand_in(tools, "quota", head + lines, status=1)
    (found,) = quota.left(tmp_path)
    assert (found.bytes, found.files, found.basis) == (0, 3, f"quota of {tmp_path}")


def test_a_tool_that_fails_says_nothing(tools: Path, tmp_path: Path) -> None:
    (tools / "lfs").write_text("#!/nowhere/sh\n")
    (tools / "lfs").chmod(0o755)
    assert quota.left(tmp_path) == []


def test_a_run_that_the_quota_does_not_take_is_refused(tools: Path, tmp_path: Path) -> None:
    stand_in(tools, "lfs", LUSTRE)
    there = storage.room(tmp_path / "run", SiteConfig())
    assert (there.bytes, there.files) == (2000 * 1024, 30) and "lfs quota -u" in there.basis
    wanted = storage.Need(checkpoint_bytes=10**7, checkpoints=2, log_bytes=0, files=10)
    with pytest.raises(InputError, match=r"2\.0 MB is left by lfs quota -u"):
        storage.require_fits(wanted, tmp_path / "run", SiteConfig())
