"""An app that is killed at any moment loses nothing that it has acknowledged. Slow: twenty kills."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx
import pytest
from sqlalchemy import select

from elm_megatron.community import database, identity
from elm_megatron.community.tables import Item
from elm_megatron.serve.engines import free_port

ROOT = Path(__file__).resolve().parents[3]
KILLS = 20
pytestmark = pytest.mark.slow


def _start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "launch" / "community.py"), f"dir={folder}", f"port={port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                return process
        except httpx.TransportError:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)


def test_no_acknowledged_text_is_lost(tmp_path: Path) -> None:
    folder, port, chance = tmp_path / "community", free_port(), random.Random(7)
    acknowledged: list[str] = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=False, timeout=20) as client:
        for attempt in range(KILLS):
            process = _start(folder, port)
            invitation = identity.invite(identity.secret(folder), "contributor")
            cookie = client.post("/log-in", data={"invitation": invitation}).headers["set-cookie"]
            headers = {"cookie": cookie.partition(";")[0]}
            token = re.search(r'name="csrf" value="([^"]+)"', client.get("/consent", headers=headers).text)
            assert token
            form = {"csrf": token[1], "training": "yes"}
            assert client.post("/consent", data=form, headers=headers).status_code == 303
            dies = time.monotonic() + chance.uniform(0.05, 1.0)
            killer = subprocess.Popen(
                [sys.executable, "-c", f"import os, time; time.sleep({dies - time.monotonic()}); "
                 f"os.kill({process.pid}, {signal.SIGKILL})"]
            )  # fmt: skip
            for number in range(40):
                text = f"text {attempt}-{number}"
                given = {"csrf": token[1], "prompt": text, "answer": "x", "may_be_used": "yes"}
                try:
                    answer = client.post("/write", data=given, headers=headers)
                except httpx.TransportError:
                    break
                if answer.status_code == 200:
                    acknowledged.append(text)
            killer.wait()
            process.wait()
    engine = database.opened(f"sqlite:///{folder}/community.sqlite")
    with database.sessions(engine)() as stored:
        kept = set(stored.scalars(select(Item.prompt)))
        assert stored.connection().exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    assert len(acknowledged) > KILLS and set(acknowledged) <= kept
