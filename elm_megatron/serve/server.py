"""One attempt of a server: engines, the gateway before them, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import uvicorn

from conf.errors import InputError
from conf.schema.serve import LOOPBACK, ServeConfig
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import Outcome, World
from elm_megatron.serve import status
from elm_megatron.serve.chat import Prompts
from elm_megatron.serve.engines import Engine, Failed, Served
from elm_megatron.serve.gateway import Gateway, Model

WRITE_SECONDS = 2.0
POLL_SECONDS = 0.1
DRAIN_SECONDS = 120  # for the answers that are being given when the server stops


class Serving(Protocol):
    """What is served; `job.Serve`, which documents it."""

    @property
    def config(self) -> ServeConfig: ...

    @property
    def models(self) -> Sequence[Served]: ...

    @property
    def successor(self) -> Callable[[World, Path], str] | None: ...


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handlers of its own: the job has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """One attempt of a job.

    Args:
        job: what is served.
        world: its one rank.
    """

    def __init__(self, job: Serving, world: World):
        self.job, self.config, self.world = job, job.config, world
        self.run_folder = Path(job.config.run.dir).absolute()
        self.key = status.key_of(self.run_folder)
        self.asked: list[int] = []
        self.handed_to: str | None = None
        self.engines: list[Engine] = []

    def run(self) -> Outcome:
        """Serve until it is idle, told to stop, or handed over.

        Raises:
            InputError: the port cannot be had.
            Failed: an engine ended.
        """
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, lambda signum, frame: self.asked.append(signum))
        with self._socket() as listening:
            try:
                logs = RunFolder(self.run_folder).logs
                for model in self.job.models:
                    self.engines.append(
                        Engine(self.config.engine, model, self.key, logs, self.config.at_once)
                    )
                for engine in self.engines:
                    engine.wait(lambda: signal.SIGTERM in self.asked)
                return "cancelled" if signal.SIGTERM in self.asked else asyncio.run(self._serve(listening))
            finally:
                for engine in self.engines:
                    engine.stop()

    def _socket(self) -> socket.socket:
        """The listening socket, had before an engine starts.

        Raises:
            InputError: the port is taken, or the address is not of this machine.
        """
        host = self.config.host
        local = self.config.cluster.executor == "local"
        port = self.config.port or (status.PORT if local else 0)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, port), family=family, backlog=512)
        except OSError as error:
            raise InputError(
                f"host={host} port={port}: cannot be used ({error.strerror}); give another port=…."
            ) from error

    async def _serve(self, listening: socket.socket) -> Outcome:
        self.gateway = Gateway(
            [Model(one.model.name, one.url, Prompts.of(one.model.source)) for one in self.engines], self.key
        )
        before = status.read(self.run_folder)
        if before.get("state") == "serving" and isinstance(before.get("last_request"), float):
            self.gateway.counts.last = before["last_request"]  # a successor is as idle as the one before it
        settings = uvicorn.Config(
            self.gateway.app, access_log=False, log_level="warning", timeout_graceful_shutdown=DRAIN_SECONDS
        )
        server = _Uvicorn(settings)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.02)
        self.port = listening.getsockname()[1]
        self._write("serving")
        self._say()
        try:
            outcome, why = await self._until_over()
        finally:
            server.should_exit = True  # it takes no more requests and ends those that are open
            await serving
            await self.gateway.client.aclose()
        self._write("stopped", why=why)
        print(f"stopped: {why}", flush=True)
        return outcome

    async def _until_over(self) -> tuple[Outcome, str]:
        """Wait, and keep the status file new."""
        wrote = time.monotonic()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if signal.SIGTERM in self.asked:
                return ("done", "its time is over") if self.handed_to else ("cancelled", "told to stop")
            if signal.SIGUSR2 in self.asked and not self.handed_to:
                if self.job.successor is None:
                    return "requeue", "told to start again"
                try:
                    self.handed_to = await asyncio.to_thread(self.job.successor, self.world, self.run_folder)
                except OSError as error:
                    return "requeue", f"its time ends, and there is no successor: {error}"
                print(f"job {self.handed_to} goes on when this job's time ends", flush=True)
            if self.handed_to and not self._is_ours():
                return "done", f"job {self.handed_to} has taken over"
            for engine in self.engines:
                if not engine.lives:
                    raise Failed(f"the engine of {engine.model.name} ended; see {engine.log}")
            limit, idle = self.config.idle_minutes, self.gateway.counts.idle_seconds
            if limit is not None and idle > 60 * limit:
                return "done", f"nobody asked for {limit:g} minutes"
            if time.monotonic() - wrote > WRITE_SECONDS:
                wrote = time.monotonic()
                self._write("serving")

    def _is_ours(self) -> bool:
        return status.is_ours(status.read(self.run_folder), self.world.job_id, self.world.restart)

    def _write(self, state: str, **more: Any) -> None:
        """Keep the status new, unless a successor has taken over."""
        now = status.read(self.run_folder)
        if self.handed_to and now and not self._is_ours():
            return
        facts = {
            "state": state,
            "models": [one.name for one in self.job.models],
            "sources": [one.source for one in self.job.models],
            "engine": self.config.engine,
            "node": socket.gethostname(),
            "host": self.config.host,
            "port": self.port,
            "job": self.world.job_id,
            "restart": self.world.restart,
            "idle_minutes": self.config.idle_minutes,
            "updated": time.time(),
        }
        with contextlib.suppress(OSError):  # a full disk is no reason to stop answering
            status.write(self.run_folder, facts | self.gateway.counts.shown() | more)

    def _say(self) -> None:
        names = ", ".join(one.name for one in self.job.models)
        print(
            f"serving {names} with {self.config.engine}: http://{self.config.host}:{self.port}/v1", flush=True
        )
        print(f"the key is in {self.run_folder / status.KEY_FILE}", flush=True)
        if self.config.host not in LOOPBACK:
            print(f"note: host={self.config.host} is open to the network, without encryption", flush=True)
