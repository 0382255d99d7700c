"""A local address that leads to a server, wherever its job runs now.

    python -m elm_megatron.serve.connect runs/serve-dpo-large-eur [--port 8600]

It reads the status file of the run. A server on another node is reached through `ssh` to that node. When a
successor takes over, new requests go to the successor; a request that has no answer yet is sent again. The
key travels with the requests and is not known here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from conf.errors import InputError
from conf.process import guarded
from conf.schema.serve import LOOPBACK
from elm_megatron.serve import status
from elm_megatron.serve.engines import free_port

WAIT_SECONDS = 60.0  # for a successor that starts
AGAIN_SECONDS = 0.3
TUNNEL_SECONDS = 15.0
TIMEOUT = httpx.Timeout(600.0, connect=5.0)
PASSED = ("authorization", "content-type", "accept")


class Nowhere(Exception):
    """There is no server now; the text says what its status file says."""


class Way:
    """The way to the server of a run.

    Args:
        run: its folder.
    """

    def __init__(self, run: Path):
        self.run = run
        self._tunnels: dict[tuple[str, int], tuple[int, subprocess.Popen[bytes]]] = {}

    async def address(self) -> str:
        """Where the server listens, seen from here.

        Raises:
            Nowhere: it does not serve, or its node cannot be reached.
        """
        found = status.read(self.run)
        if found.get("state") != "serving":
            raise Nowhere(f"{self.run.name} is not serving ({found.get('why') or 'it has not started yet'})")
        node, host, port = str(found.get("node")), str(found.get("host")), int(found.get("port") or 0)
        if node == socket.gethostname() or host not in LOOPBACK:
            return f"http://{host if host not in ('0.0.0.0', '::') else node}:{port}"
        return f"http://127.0.0.1:{await self._tunnel(node, port)}"

    async def _tunnel(self, node: str, port: int) -> int:
        """The local end of an ssh tunnel to a node, begun where there is none."""
        known = self._tunnels.get((node, port))
        if known and known[1].poll() is None:
            return known[0]
        here = free_port()
        words = ["ssh", "-N", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"]
        process = subprocess.Popen([*words, "-L", f"{here}:127.0.0.1:{port}", node], stdin=subprocess.DEVNULL)
        self._tunnels[node, port] = here, process
        until = time.monotonic() + TUNNEL_SECONDS
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", here), 1):
                return here
            await asyncio.sleep(0.1)
        process.terminate()
        raise Nowhere(f"ssh to {node} does not work, where {self.run.name} runs")

    def close(self) -> None:
        """End the tunnels."""
        for _, process in self._tunnels.values():
            process.terminate()


def app(way: Way) -> Starlette:
    """What forwards every request."""
    # No connection is kept: one to a server that has just ended would fail a request.
    client = httpx.AsyncClient(timeout=TIMEOUT, limits=httpx.Limits(max_keepalive_connections=0))

    async def forward(request: Request) -> Response:
        body = await request.body()
        headers = {name: value for name, value in request.headers.items() if name in PASSED}
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                url = await way.address() + request.url.path
                asked = client.build_request(request.method, url, content=body, headers=headers)
                answer = await client.send(asked, stream=True)
                break
            except (httpx.TransportError, OSError, Nowhere) as error:
                if time.monotonic() > until:
                    said = str(error) if isinstance(error, Nowhere) else "the server does not answer"
                    return JSONResponse({"error": {"message": said, "type": "server_error"}}, 503)
                await asyncio.sleep(AGAIN_SECONDS)
        kind = answer.headers.get("content-type", "application/json")
        return StreamingResponse(_content(answer), answer.status_code, media_type=kind)

    return Starlette(routes=[Route("/{path:path}", forward, methods=["GET", "POST"])])


async def _content(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


def connect(argv: Any = None) -> int:
    """Listen on loopback until Ctrl-C.

    Raises:
        InputError: there is no such run, or the port is taken.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder of the server")
    parser.add_argument("--port", type=int, default=status.PORT, help="where to listen on this machine")
    given = parser.parse_args(argv)
    run = given.run.absolute()
    if not (run / "run.json").is_file():
        raise InputError(f"{given.run}: is no run folder.")
    try:
        listening = socket.create_server(("127.0.0.1", given.port), backlog=512)
    except OSError as error:
        raise InputError(f"--port {given.port}: cannot be used ({error.strerror}).") from error
    way = Way(run)
    here = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    print(f"{here} leads to {run.name}; the key is in {run / status.KEY_FILE}", flush=True)
    try:
        settings = uvicorn.Config(app(way), access_log=False, log_level="warning")
        uvicorn.Server(settings).run(sockets=[listening])
    finally:
        way.close()
    return 0


if __name__ == "__main__":
    sys.exit(guarded(connect))
