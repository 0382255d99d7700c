"""What a person is told of a run, and that a message that cannot be sent costs nothing."""

from __future__ import annotations

import json
import os
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
from slurm.jobs import notify, submit


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
    assert not notify.tell(run) and notify.pending(home / "runs") == 1
    notify.ADDRESS.write_text(right)
    assert notify.pending(home / "runs") == 0 and notify.pending(home / "runs") == 0
    assert [told["state"] for told in inbox] == ["requeued"]


def test_a_stalled_run_is_told_of_once(home: Path, inbox: list[dict[str, Any]]) -> None:
    run = run_of(home / "runs/x", state="running")
    run.metrics.write_text(json.dumps({"step": 5}) + "\n")
    assert notify.pending(home / "runs") == 0 and inbox == []
    old = time.time() - 2 * notify.STALLED_SECONDS
    os.utime(run.metrics, (old, old))
    record = run.read() | {"updated": old}
    run.run_json.write_text(json.dumps(record))
    for _ in range(2):
        notify.pending(home / "runs")
    assert [(told["state"], told["step"]) for told in inbox] == [("stalled", 5)]


def config(*keys: str) -> PretrainConfig:
    found: list[PretrainConfig] = []
    compose.run("pretrain", PretrainConfig, found.append, ["cluster=dev", *keys])
    return found[0]


def test_the_script_tells_of_the_start_and_the_end_only_when_asked(home: Path) -> None:
    text = submit.script(config("notify=[mail,webhook]"), 1, "pretrain")
    assert "trap notify EXIT" in text and f"#SBATCH --mail-type={notify.MAIL_TYPES}\n" in text
    plain = submit.script(config(), 1, "pretrain")
    assert "slurm.jobs.notify" not in plain and "mail-type" not in plain
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
