"""A server as a person starts it: `launch/serve.py` on this machine, llama.cpp behind it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from elm_megatron.serve.engines import free_port
from tests.elm_megatron.serve.tiny_gguf import export_run

ROOT = Path(__file__).resolve().parents[3]
CANARY = "qxcanaryqx"


class Running:
    """A server of two models, and how to ask it."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()
        for seed, name in enumerate(("one", "two")):
            export_run(folder / "runs" / name, seed)
        command = [sys.executable, str(ROOT / "launch" / "serve.py"), "source=[one,two]", "run.name=served"]
        self.process = subprocess.Popen(
            [*command, f"port={self.port}"], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.run = folder / "runs" / "served"
        until = time.monotonic() + 120
        while '"serving"' not in self.status_text():
            assert self.process.poll() is None and time.monotonic() < until, self.process.communicate()[0]
            time.sleep(0.1)
        self.key = (self.run / "serve.key").read_text().strip()

    def status_text(self) -> str:
        path = self.run / "serving.json"
        return path.read_text() if path.exists() else ""

    def post(self, path: str, key: str | None = None, **body: object) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key if key is None else key}"}
        return httpx.post(f"http://127.0.0.1:{self.port}{path}", json=body, headers=headers, timeout=60)

    def chat(self, messages: list[dict[str, str]], **body: object) -> httpx.Response:
        return self.post("/v1/chat/completions", messages=messages, max_tokens=6, temperature=0, **body)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    pytest.importorskip("xllamacpp", reason="needs the xllamacpp package")
    found = Running(tmp_path_factory.mktemp("served"))
    yield found
    found.process.kill()


def test_chat_text_streaming_and_models(running: Running) -> None:
    asked = [{"role": "user", "content": CANARY}]
    for model in ("one", "two"):
        answer = running.post(
            "/v1/chat/completions", messages=asked, model=model, max_tokens=6, temperature=0
        ).json()
        assert answer["object"] == "chat.completion" and answer["model"] == model
        assert answer["choices"][0]["message"]["role"] == "assistant"
        text = running.post("/v1/completions", prompt="abc", model=model, max_tokens=6).json()
        assert text["object"] == "text_completion" and text["usage"]["completion_tokens"] <= 6
    streamed = running.post(
        "/v1/chat/completions", messages=asked, max_tokens=6, temperature=0, stream=True
    ).text
    lines = [line.removeprefix("data: ") for line in streamed.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    said = "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1])
    whole = running.chat(asked).json()
    assert said == whole["choices"][0]["message"]["content"] != ""
    listed = httpx.get(
        f"http://127.0.0.1:{running.port}/v1/models", headers={"authorization": f"Bearer {running.key}"}
    ).json()
    assert [one["id"] for one in listed["data"]] == ["one", "two"]


def test_refusals_are_sentences(running: Running) -> None:
    asked = [{"role": "user", "content": "a"}]
    for key in ("none", "wrong", running.key[:-1]):
        assert running.post("/v1/chat/completions", key=key, messages=asked).status_code == 401
    other = running.post("/v1/chat/completions", messages=asked, model="three")
    assert other.status_code == 404 and "allowed are one, two" in other.json()["error"]["message"]
    bad = httpx.post(
        f"http://127.0.0.1:{running.port}/v1/completions", content=b"no json",
        headers={"authorization": f"Bearer {running.key}"},
    )  # fmt: skip
    assert bad.status_code == 400 and "not a JSON object" in bad.text


def test_the_key_and_the_texts_are_nowhere_else(running: Running) -> None:
    running.post("/v1/completions", prompt=CANARY, max_tokens=2)
    assert stat.S_IMODE((running.run / "serve.key").stat().st_mode) == 0o600
    for path in running.folder.rglob("*"):
        if path.is_file() and path.name != "serve.key":
            text = path.read_bytes()
            assert running.key.encode() not in text and CANARY.encode() not in text, path
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert running.key.encode() not in path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_it_listens_on_loopback_alone(running: Running) -> None:
    ports = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    ours = [line.split()[3] for line in ports.splitlines() if line.split()[3].endswith(f":{running.port}")]
    assert ours == [f"127.0.0.1:{running.port}"]


def test_the_status_counts_and_the_end_is_said(running: Running) -> None:
    """Last in this file: it stops the server."""
    before = json.loads(running.status_text())
    running.post("/v1/completions", prompt="abc", max_tokens=3)
    until = time.monotonic() + 20
    while (now := json.loads(running.status_text()))["requests"] == before["requests"]:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert now["open"] == 0 and now["last_request"] >= before["last_request"] and now["engine"] == "llamacpp"
    os.kill(running.process.pid, signal.SIGINT)
    out = running.process.communicate(timeout=60)[0]
    assert running.process.returncode == 130
    assert "engine: llama.cpp, on the CPU" in out and f"http://127.0.0.1:{running.port}/v1" in out
    assert "stopped: told to stop" in out and running.key not in out
    assert json.loads(running.status_text())["state"] == "stopped"
