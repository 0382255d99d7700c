"""A home that is full or missing, a folder without locks, a group's folder: an answer and a sentence."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep import files
from slurm.tracker import cache, history, listing, poll

ELM_QUEUE = [sys.executable, "-m", "slurm.tracker"]


@pytest.fixture(autouse=True)
def said_anew() -> None:
    cache.note.cache_clear()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a home and nothing set by an admin; the temporary folder is the test's too."""
    for name in ("ELM_QUEUE_CACHE", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_a_home_that_is_a_file_is_replaced_by_the_temporary_folder(
    home: Path, fake_slurm, rows, capsys
) -> None:
    home.rmdir()
    home.write_text("")
    fake_slurm.answer([rows(1)])
    assert len(poll.picture().jobs) == 1
    assert len(history.History().attempts()) == 0
    spare = home.parent / f"elm-queue-{os.geteuid()}"
    assert stat.S_IMODE(spare.stat().st_mode) == 0o700
    told = capsys.readouterr().err
    assert f"cannot be made (Not a directory); {spare} is used instead" in told
    assert told.count("\n") == 2, "the cache and the history, once each"


def test_a_strangers_folder_in_the_temporary_folder_is_not_used(home: Path, fake_slurm, rows, capsys) -> None:
    home.rmdir()
    home.write_text("")
    (home.parent / f"elm-queue-{os.geteuid()}").mkdir(mode=0o777)
    (home.parent / f"elm-queue-{os.geteuid()}").chmod(0o777)
    fake_slurm.answer([rows(1)])
    assert len(poll.picture().jobs) == 1
    assert "belongs to somebody else" in capsys.readouterr().err or cache.folder() is None


def test_a_full_disk_costs_speed_only(home: Path, fake_slurm, rows, monkeypatch, capsys) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    fake_slurm.answer([rows(1)])
    monkeypatch.setattr(files, "replacing", full)
    assert len(poll.picture().jobs) == 1
    assert len(poll.picture().jobs) == 1
    told = capsys.readouterr().err
    assert "cannot be written (No space left on device); every command asks Slurm itself" in told
    assert told.count("\n") == 1, "said once"


@pytest.mark.parametrize("problem", ["database or disk is full", "attempt to write a readonly database"])
def test_a_history_that_cannot_be_written_is_kept_in_memory(home: Path, monkeypatch, capsys, problem) -> None:
    opened = sqlite3.connect

    def refuse(path: object, **options: object) -> sqlite3.Connection:
        if path == ":memory:":
            return opened(path)
        raise sqlite3.OperationalError(problem)

    monkeypatch.setattr(sqlite3, "connect", refuse)
    found = history.History()
    assert found.path is None
    assert found.attempts() == []
    assert (
        f"cannot be written ({problem}); accounting is read anew by each command" in capsys.readouterr().err
    )


def test_a_file_system_without_locks_has_none(home: Path, fake_slurm, rows, monkeypatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fake_slurm.answer([rows(1)])
    monkeypatch.setattr("fcntl.flock", no_locks)
    assert len(poll.picture().jobs) == 1
    found = history.History()
    monkeypatch.setattr(history, "read", lambda begin, end: [])
    assert found.sync() == 0


def test_an_error_inside_the_lock_is_not_taken_for_a_missing_lock(tmp_path: Path) -> None:
    entered = 0
    with pytest.raises(OSError, match="inside"), cache.locked(tmp_path / "lock"):
        entered += 1
        raise OSError("inside")
    assert entered == 1


def test_a_groups_folder_is_readable_for_the_group(tmp_path: Path, monkeypatch, fake_slurm, rows) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    monkeypatch.setenv("ELM_QUEUE_CACHE", str(shared))
    fake_slurm.answer([rows(1)])
    before = os.umask(0o077)
    try:
        poll.picture()
        history.History()
    finally:
        os.umask(before)
    (folder,) = shared.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) & 0o070 == 0o070
    for name in ("picture", "lock", "history.sqlite"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o660, name


def test_a_network_home_has_no_write_ahead_log(tmp_path: Path, monkeypatch) -> None:
    def journal() -> str:
        found = history.History(tmp_path / f"{len(list(tmp_path.iterdir()))}.sqlite")
        return found.connection.execute("PRAGMA journal_mode").fetchone()[0]

    assert journal() == "wal"
    monkeypatch.setattr(cache, "on_network", lambda path: True)
    assert journal() == "delete"


def test_the_longest_mount_point_tells_the_file_system(tmp_path: Path, monkeypatch) -> None:
    lines = (
        "/dev/sda / ext4 rw 0 0",
        f"server:/x {tmp_path}/a\\040b nfs4 rw 0 0",
        f"tmpfs {tmp_path}/a\\040b/local tmpfs rw 0 0",
    )
    mounts = "\n".join(lines)
    (tmp_path / "a b" / "local").mkdir(parents=True)
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, **k: mounts if str(self) == "/proc/mounts" else read(self, **k)
    )
    assert cache.on_network(tmp_path / "a b" / "history.sqlite")
    assert not cache.on_network(tmp_path / "a b" / "local" / "history.sqlite")
    assert not cache.on_network(tmp_path / "history.sqlite")


def test_a_user_without_a_passwd_entry_has_a_number(monkeypatch) -> None:
    for name in ("LOGNAME", "USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    assert listing.me() == "4000000"


def test_a_squeue_that_cannot_be_run_is_one_sentence(fake_slurm) -> None:
    (fake_slurm.folder / "squeue").chmod(0o644)
    (fake_slurm.folder / "squeue").write_text("#!/no/such/interpreter\n")
    (fake_slurm.folder / "squeue").chmod(0o755)
    done = subprocess.run([*ELM_QUEUE, "list"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "squeue" in done.stderr


def test_the_same_id_on_two_clusters_is_one_sentence(fake_slurm, rows) -> None:
    fake_slurm.answer([rows(7, Cluster="delft"), rows(7, Cluster="leiden"), rows(8, Cluster="delft")])
    done = subprocess.run([*ELM_QUEUE, "why", "7"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "elm-queue: id: found 7 on the clusters delft and leiden; say which: elm-queue --cluster delft\n"
    )
    listed = subprocess.run([*ELM_QUEUE, "list", "--json"], capture_output=True, text=True, check=True)
    assert '"cluster": "leiden"' in listed.stdout


def test_a_cut_off_picture_counts_as_none(fake_slurm, rows, own_cache: Path, monkeypatch) -> None:
    fake_slurm.answer([rows(1, Name="two\vlines")])
    poll.picture()
    monkeypatch.setenv("ELM_QUEUE_MAX_AGE", "30")
    assert poll.picture().jobs[0].job_id == 1
    assert fake_slurm.calls == 1
    (file,) = own_cache.glob("*/picture")
    file.write_bytes(file.read_bytes()[:-1])
    assert poll.picture().jobs[0].job_id == 1
    assert fake_slurm.calls == 2
