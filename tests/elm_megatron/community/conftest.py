"""An app over a fresh database, people who log in as a browser does, and a model that answers on loopback."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from elm_megatron.community import database, identity, settings
from elm_megatron.community.app import make


class Person:
    """A logged-in browser.

    Args:
        client: with its own cookies.
    """

    def __init__(self, client: TestClient):
        self.client = client

    def get(self, path: str) -> str:
        """The text of a page that must be served."""
        answer = self.client.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.text

    def csrf(self) -> str:
        """The token that this login's forms carry."""
        return re.search(r'name="csrf" value="([^"]+)"', self.client.get("/consent").text)[1]

    def post(self, path: str, status: int = 200, **form: object) -> str:
        """Send a form with its token; the page behind it."""
        answer = self.client.post(path, data={"csrf": self.csrf(), **form})
        assert answer.status_code == status, (path, answer.status_code, answer.text[:500])
        return answer.text

    def agree(self, training: bool = True) -> Person:
        """Choose on the consent page."""
        self.post("/consent", publication="yes", **({"training": "yes"} if training else {}))
        return self

    def give(self, prompt: str, answer: str, **form: str) -> None:
        """Write a text."""
        self.post("/write", prompt=prompt, answer=answer, language="en", may_be_used="yes", **form)


class Community:
    """The app with its folder."""

    def __init__(self, folder: Path, models: list[dict[str, str]]):
        self.folder, self.runs = folder / "community", folder / "runs"
        self.settings = settings.read(self.folder, models)
        self.engine = database.opened(f"sqlite:///{self.folder}/community.sqlite")
        self.app = make(self.settings, self.engine, self.runs)
        self.key = identity.secret(self.folder)
        self.sessions = database.sessions(self.engine)

    def browser(self) -> TestClient:
        """A browser without a login."""
        return TestClient(self.app, base_url="https://elm.test", follow_redirects=True)

    def person(self, role: str = "contributor") -> Person:
        """Somebody who came through an invitation."""
        client = self.browser()
        client.post("/log-in", data={"invitation": identity.invite(self.key, role)})
        return Person(client)


class Answers(BaseHTTPRequestHandler):
    """Streams `answer of <model>: <question>` as an OpenAI-compatible server does."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        question = body["messages"][-1]["content"]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for piece in ("An answer ", "to: ", question, f" ({self.server.voice})"):  # type: ignore[attr-defined]
            line = json.dumps({"choices": [{"delta": {"content": piece}}]})
            self.wfile.write(f"data: {line}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def model() -> Iterator[Callable[[str], dict[str, str]]]:
    """Starts a server that answers in a voice; gives its endpoint. A stand-in for a served model."""
    servers: list[ThreadingHTTPServer] = []

    def start(name: str, voice: str = "") -> dict[str, str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        server.voice = voice or name[-1] * 2  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return {"name": name, "url": f"http://127.0.0.1:{server.server_port}"}

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def community(tmp_path: Path, model: Callable[..., dict[str, str]]) -> Community:
    """An app with two models."""
    return Community(tmp_path, [model("elm-tuned-x"), model("elm-before-y")])
