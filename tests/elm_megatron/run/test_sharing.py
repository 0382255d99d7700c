"""A run that a group shares, with real users: its owner, a colleague in the group, a stranger."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.errors import InputError
from elm_megatron.run import requests, sharing
from elm_megatron.run.folder import RunFolder, append_jsonl
from tests import users

needs_users = pytest.mark.skipif(bool(users.why_none()), reason=str(users.why_none()))


@pytest.fixture
def folder() -> Iterator[Path]:
    with users.reachable_folder() as found:
        yield found


def write_run(path: Path) -> None:
    """What a submission and a training run write, and a secret."""
    run = RunFolder(path)
    run.create()
    run.update(state="submitted")
    assert sharing.share(path, users.GROUP) == []
    os.umask(sharing.umask_of(path))
    run.update(state="running")
    append_jsonl(run.metrics, {"step": 1, "loss": 3.0})
    (run.checkpoints / "step-00000001").mkdir(parents=True)
    (run.checkpoints / "step-00000001/rank.safetensors").write_bytes(b"numbers")
    (run.logs / "1_submitted.pkl").write_bytes(b"code")
    sharing.keep_private(run.logs)
    os.close(os.open(path / "secret", os.O_CREAT | os.O_WRONLY, 0o600))


def read_and_ask(path: Path) -> None:
    """All that a colleague may do, and what not."""
    run = RunFolder(path)
    assert run.read()["state"] == "running" and run.read_metrics()[0]["loss"] == 3.0
    assert (run.checkpoints / "step-00000001/rank.safetensors").read_bytes() == b"numbers"
    for name in ("secret", "logs/1_submitted.pkl"):
        with pytest.raises(PermissionError):
            (path / name).read_bytes()
    for name in ("run.json", "logs/script.sh", "new"):
        with pytest.raises(PermissionError):
            (path / name).write_text("mine")
    with pytest.raises(PermissionError):
        run.metrics.unlink()
    with pytest.raises(PermissionError):
        list(path.parent.iterdir())  # other runs are not shown
    assert requests.can_ask(path)
    requests.ask(path, requests.SAVE)
    requests.ask(path, requests.SAVE)


def find_it_closed(path: Path) -> None:
    for action in (lambda: list(path.iterdir()), (path / "run.json").read_text):
        with pytest.raises(PermissionError):
            action()
    assert not requests.can_ask(path)


@needs_users
@pytest.mark.parametrize("acls", [True, False])
def test_a_group_reads_and_asks_and_others_see_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, acls: bool
) -> None:
    if not acls:  # a file system without them
        monkeypatch.setattr(sharing, "_set_acl", lambda *_: False)
        monkeypatch.setattr(sharing, "_acl", lambda *_: [])
    run = folder / "runs/shared"
    users.call_as(users.OWNER, lambda: write_run(run))
    users.call_as(users.COLLEAGUE, lambda: read_and_ask(run))
    users.call_as(users.STRANGER, lambda: find_it_closed(run), member=False)
    for path in [run.parent, *run.parent.rglob("*")]:
        assert path.stat().st_mode & 0o007 == 0, path

    def take() -> None:
        assert requests.Requests(RunFolder(run)).look() == {requests.SAVE: users.COLLEAGUE}
        assert list((run / requests.FOLDER).iterdir()) == []

    users.call_as(users.OWNER, take)


@needs_users
def test_a_run_is_opened_later_and_a_colleague_cannot_take_back_anothers_request(folder: Path) -> None:
    run = RunFolder(folder / "runs/late")

    def late() -> None:
        run.create()
        run.update(state="running")
        (run.path / "tensorboard").mkdir()
        (run.path / "tensorboard/events").write_text("x")
        sharing.share(run.path, users.GROUP)
        requests.ask(run.path, requests.STOP)

    def read() -> None:
        assert (run.path / "tensorboard/events").read_text() == "x"
        with pytest.raises(PermissionError):
            (run.path / requests.FOLDER / requests.STOP).unlink()

    users.call_as(users.OWNER, late)
    users.call_as(users.COLLEAGUE, read)


@needs_users
def test_a_group_that_is_not_there_or_not_mine_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"run\.group=nosuchgroup: there is no such Unix group"):
        sharing.share(folder, "nosuchgroup")

    def not_a_member() -> None:
        (folder / "mine").mkdir()
        with pytest.raises(InputError, match=rf"run\.group={users.GROUP}: .*have to be a member"):
            sharing.share(folder / "mine", users.GROUP)

    users.call_as(users.STRANGER, not_a_member, member=False)


@needs_users
def test_a_closed_folder_above_is_named(folder: Path) -> None:
    above = folder / "home"
    (above / "runs/x").mkdir(parents=True)
    above.chmod(0o700)
    (note,) = sharing.share(above / "runs/x", users.GROUP)
    assert str(above) in note and str(above / "runs,") not in note
    assert stat.S_IMODE(above.stat().st_mode) == 0o700


def test_a_run_without_a_group_reads_no_requests(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.create()
    assert requests.Requests(run).look() == {} and not requests.can_ask(run.path)
    assert sharing.umask_of(run.path) == 0o077 and stat.S_IMODE(run.path.stat().st_mode) == 0o700
