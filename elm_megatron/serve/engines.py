"""What computes behind the gateway: llama.cpp's server on CPUs, vLLM's on GPUs, each for one model.

An engine listens on a loopback port of its node and gets the key through its environment. What it prints is
in the run's `logs/`.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib import error, request

from conf.errors import InputError
from data_prep.environment import scrubbed
from elm_megatron.sources.source import resolve

START_SECONDS = 900.0  # vLLM compiles for minutes
STOP_SECONDS = 10.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Served:
    """One model of a server.

    Attributes:
        name: what requests call it.
        source: as a person gave it; its tokenizer and its template are read from there.
        path: what the engine reads: a GGUF file, or a Hugging Face folder.
    """

    name: str
    source: str
    path: str

    @property
    def context(self) -> int:
        """Tokens of one conversation at most; 0 is what the file says."""
        try:
            return resolve(self.source).model.max_position_embeddings
        except InputError:  # of a GGUF file alone, whose source is gone
            return 0


def llamacpp(model: Served, port: int, at_once: int) -> list[str]:
    """The command of llama.cpp's server."""
    words = [model.path, str(port), model.name, str(model.context), str(at_once)]
    return [sys.executable, "-m", "elm_megatron.serve.llama_server", *words]


def vllm(model: Served, port: int, at_once: int) -> list[str]:
    """The command of vLLM's server."""
    words = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", model.name]
    words += ["--max-num-seqs", str(at_once)]
    words += ["--disable-uvicorn-access-log"]  # prompts are logged where they are asked for alone
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model.path, *words]


COMMANDS: dict[str, Callable[[Served, int, int], list[str]]] = {"llamacpp": llamacpp, "vllm": vllm}
KEY_VARIABLES = {"llamacpp": "ELM_SERVE_KEY", "vllm": "VLLM_API_KEY"}


class Failed(RuntimeError):
    """An engine ended before it answered."""


class Engine:
    """A running engine.

    Args:
        kind: of `COMMANDS`.
        model: what it serves.
        key: that its requests carry.
        logs: folder of its output.
        at_once: requests at the same time.
    """

    def __init__(self, kind: str, model: Served, key: str, logs: Path, at_once: int):
        self.model, self.port = model, free_port()
        self.log = logs / f"engine-{model.name}.log"
        command = COMMANDS[kind](model, self.port, at_once)
        env = scrubbed() | {KEY_VARIABLES[kind]: key}
        with self.log.open("ab") as out:
            self.log.chmod(0o600)
            # Slurm sends the signal that announces the time limit to every process of the job.
            self.process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
            )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def lives(self) -> bool:
        """Whether its process is there."""
        return self.process.poll() is None

    def wait(self, stop: Callable[[], bool]) -> None:
        """Return when it answers, or when `stop` says so.

        Raises:
            Failed: it ended, or does not answer for `START_SECONDS`.
        """
        until = time.monotonic() + START_SECONDS
        while not stop():
            if not self.lives:
                raise Failed(
                    f"the engine of {self.model.name} ended with {self.process.returncode}; see {self.log}"
                )
            try:
                with request.urlopen(f"{self.url}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (error.URLError, OSError):
                pass
            if time.monotonic() > until:
                raise Failed(f"the engine of {self.model.name} does not answer; see {self.log}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it."""
        if not self.lives:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    """A port of the loopback interface that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
