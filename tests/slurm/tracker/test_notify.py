"""What a person is told of a run, and that a message that cannot be sent costs nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from conf import compose
from conf.errors import InputError
from conf.schema.pretrain import PretrainConfig
from elm_megatron.run.folder import RunFolder
from slurm.jobs import submit
from slurm.tracker import notify


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(notify, "ADDRESS", tmp_path / "webhook")
    return tmp_path


@pytest.fixture
def inbox(home: Path) -> Iterator[list[dict[str, Any]]]:
    """What a server on this machine was sent; its address is the one in the file."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    notify.ADDRESS.write_text(f"http://127.0.0.1:{server.server_port}/hook")
    yield got
    server.shutdown()
    server.server_close()


def run_of(folder: Path, **record: Any) -> RunFolder:
    run = RunFolder(folder)
    run.create()
    run.update(job_ids=["7"], cluster="dev", **record)
    return run


def test_the_body_names_the_run_and_holds_no_secret(home: Path, inbox: list[dict[str, Any]]) -> None:
    run = run_of(home / "runs/x", state="failed", reason="token=s3cret", step=3)
    assert notify.tell(run)
    (told,) = inbox
    assert (told["run"], told["state"], told["job"], told["step"]) == ("x", "failed", "7", 3)
    assert "s3cret" not in json.dumps(told) and str(home) not in json.dumps(told)


def test_what_cannot_be_sent_is_left_and_sent_later(home: Path, inbox: list[dict[str, Any]]) -> None:
    right = notify.ADDRESS.read_text()
    notify.ADDRESS.write_text("http://127.0.0.1:9/closed")
    run = run_of(home / "runs/x", state="requeued")
    assert not notify.tell(run) and notify.pending(home / "runs").left == ["x: requeued"]
    notify.ADDRESS.write_text(right)
    assert notify.pending(home / "runs").sent == ["x: requeued"]
    assert notify.pending(home / "runs") == notify.Pass()
    assert [told["state"] for told in inbox] == ["requeued"]


def test_a_stalled_run_is_told_of_once(home: Path, inbox: list[dict[str, Any]]) -> None:
    run = run_of(home / "runs/x", state="running")
    run.metrics.write_text(json.dumps({"step": 5}) + "\n")
    assert notify.pending(home / "runs") == notify.Pass() and inbox == []
    old = time.time() - 2 * notify.STALLED_SECONDS
    os.utime(run.metrics, (old, old))
    record = run.read() | {"updated": old}
    run.run_json.write_text(json.dumps(record))
    for _ in range(2):
        notify.pending(home / "runs")
    assert [(told["state"], told["step"]) for told in inbox] == [("stalled", 5)]
    run.update(state="running")  # it goes on, and stalls again later
    notify.pending(home / "runs")
    run.run_json.write_text(json.dumps(record))
    assert notify.pending(home / "runs").stalled == ["x"] and len(inbox) == 2


def test_a_run_that_came_to_no_step_is_stalled_and_one_of_slow_steps_is_not(home: Path) -> None:
    old = time.time() - 2 * notify.STALLED_SECONDS
    for name in ("no-step", "slow"):
        run = run_of(home / "runs" / name, state="running")
        run.run_json.write_text(json.dumps(run.read() | {"updated": old}))
    times = (old - notify.STALLED_SECONDS, old)
    run.metrics.write_text("".join(json.dumps({"step": 1, "time": when}) + "\n" for when in times))
    os.utime(run.metrics, (old, old))
    assert notify.pending(home / "runs").stalled == ["no-step"]


def test_stalled_runs_are_mailed_with_slurms_own_program(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {"scontrol": f"echo 'MailProg = {home}/bin/mailer'", "mailer": f'echo "$@" > {home}/mail'}
    (home / "bin").mkdir()
    for name, line in programs.items():
        (home / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (home / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}/bin:{os.environ['PATH']}")
    for name, channels in (("quiet", []), ("told", ["mail"])):
        run = run_of(home / "runs" / name, state="running", notify=channels, mail_user="a@example.org")
        old = time.time() - 2 * notify.STALLED_SECONDS
        run.run_json.write_text(json.dumps(run.read() | {"updated": old}))
    command = [sys.executable, "-m", "slurm.tracker", "notify", str(home / "runs")]
    for expected in ("stalled: told\n", ""):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == (expected, "")
    assert (
        home / "mail"
    ).read_text() == "-s told: stalled, nothing was logged for a long time a@example.org\n"


def config(*keys: str) -> PretrainConfig:
    found: list[PretrainConfig] = []
    compose.run("pretrain", PretrainConfig, found.append, ["cluster=dev", *keys])
    return found[0]


def test_the_script_tells_of_the_start_and_the_end_only_when_asked(home: Path) -> None:
    text = submit.script(config("notify=[mail,webhook]"), 1, "pretrain")
    assert "trap notify EXIT" in text and f"#SBATCH --mail-type={notify.MAIL_TYPES}\n" in text
    plain = submit.script(config(), 1, "pretrain")
    assert "slurm.tracker.notify" not in plain and "mail-type" not in plain
    with pytest.raises(InputError, match=r"notify=pigeon: must be of mail, webhook"):
        config("notify=[pigeon]")


@pytest.mark.parametrize("text", ["", "http://example.org/x", "ftp://example.org"])
def test_an_address_that_is_not_https_is_refused(home: Path, text: str) -> None:
    notify.ADDRESS.write_text(text)
    with pytest.raises(InputError, match="must begin with https"):
        notify.address()
    notify.ADDRESS.unlink()
    with pytest.raises(InputError, match="write the address into"):
        notify.address()
