"""run.json with several writers: rank 0 sets the step while another rank writes that it failed."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from elm_megatron.run import folder as run_folder
from elm_megatron.run.folder import RunFolder

UPDATES = 50
WRITER = f"""
import sys
from elm_megatron.run import folder as run_folder
run_folder.LOCK_SECONDS = 100
run = run_folder.RunFolder(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range({UPDATES}):
    run.update(**{{sys.argv[2]: number}})
    run.update(**{{f"{{sys.argv[2]}}-{{number}}": True}})
"""


def test_what_several_write_at_once_is_all_kept(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for writer in writers:
        assert writer.stdout and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(120) for writer in writers] == [0] * len(writers)
    record = RunFolder(tmp_path).read()
    wanted = {f"{name}-{number}" for name in names for number in range(UPDATES)}
    assert not wanted - set(record)
    assert [record[name] for name in names] == [UPDATES - 1] * len(names)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_one_that_stands_still_with_the_lock_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "LOCK_SECONDS", 0.3)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    begin = time.monotonic()
    RunFolder(tmp_path).update(step=1)
    assert time.monotonic() - begin >= 0.3
    os.close(descriptor)
    monkeypatch.setattr(run_folder, "LOCK_SECONDS", 1000)
    RunFolder(tmp_path).update(step=2)  # the lock is free at once
    assert RunFolder(tmp_path).read()["step"] == 2


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    RunFolder(tmp_path).update(step=1)
    assert RunFolder(tmp_path).read()["step"] == 1
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_a_folder_that_is_gone_leaves_nothing_in_its_place(tmp_path: Path) -> None:
    """Scratch was purged while the run went on: the same name can be used again."""
    run = RunFolder(tmp_path / "run")
    with pytest.raises(FileNotFoundError):
        run.update(state="running")
    assert list(tmp_path.iterdir()) == []
