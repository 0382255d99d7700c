"""The web app under load, on loopback: python tests/bench/community.py [--people 100] [--seconds 10]

So many people load pages at once, each another one every five seconds; then so many answers are streamed at
once, asked of the gateway of `launch/serve.py` and of the engine behind it. The engine is a stand-in with a
fixed pace, so that the difference is the gateway's. Prints percentiles; nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx2 as httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from elm_megatron.community import database, identity, settings
from elm_megatron.community.app import make
from elm_megatron.serve.gateway import Gateway, Model

PAGES = ("/", "/about", "/board", "/mine", "/review", "/ask")
PIECES, PAUSE = 20, 0.05
READING = 5.0
KEY = "a-key"


@contextlib.contextmanager
def served(app: object) -> Iterator[str]:
    """An app on a loopback port, in a process of its own."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    run = uvicorn.Server(config).run
    process = multiprocessing.get_context("fork").Process(target=run, kwargs={"sockets": [listening]})
    process.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    process.terminate()
    process.join()


async def _answer(request: Request) -> Response:
    async def pieces() -> object:
        for _ in range(PIECES):
            await asyncio.sleep(PAUSE)
            yield 'data: {"choices": [{"index": 0, "text": "word ", "delta": {"content": "word "}}]}\n\n'
        yield "data: [DONE]\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")  # type: ignore[arg-type]


ENGINE = Starlette(routes=[Route("/v1/chat/completions", _answer, methods=["POST"])])


async def pages(url: str, cookies: list[str], seconds: float) -> list[float]:
    """Seconds of each page, while everybody loads one after another with a pause of reading."""
    taken: list[float] = []
    until = time.monotonic() + seconds

    async def one(client: httpx.AsyncClient, cookie: str, number: int) -> None:
        await asyncio.sleep(READING * number / len(cookies))
        while time.monotonic() < until:
            for page in PAGES:
                began = time.perf_counter()
                answer = await client.get(url + page, headers={"cookie": cookie})
                taken.append(time.perf_counter() - began)
                assert answer.status_code == 200, page
                await asyncio.sleep(READING)

    async with httpx.AsyncClient(timeout=60) as client:
        await asyncio.gather(*(one(client, cookie, number) for number, cookie in enumerate(cookies)))
    return taken


async def streams(ask: Callable[[httpx.AsyncClient], Awaitable[float]], count: int) -> list[float]:
    """Seconds to the first piece of each of so many answers that are open at once."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        return list(await asyncio.gather(*(ask(client) for _ in range(count))))


def asking(url: str) -> Callable[[httpx.AsyncClient], Awaitable[float]]:
    """Asks one question; gives the seconds to the first piece, after the whole answer."""

    async def ask(client: httpx.AsyncClient) -> float:
        began, first = time.perf_counter(), 0.0
        body = {"messages": [{"role": "user", "content": "Hello?"}], "stream": True, "model": "elm"}
        headers = {"authorization": f"Bearer {KEY}"}
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
            async for line in answer.aiter_lines():
                first = first or (time.perf_counter() - began if "word" in line else 0.0)
        return first

    return ask


def shown(what: str, taken: list[float]) -> None:
    """Print the percentiles in milliseconds."""
    cut = statistics.quantiles(taken, n=20)
    figures = f"n={len(taken):6}  median {1e3 * cut[9]:7.1f} ms  p95 {1e3 * cut[18]:7.1f} ms"
    print(f"{what:45} {figures}", flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = settings.read(Path(folder) / "community", [])
        engine = database.opened(f"sqlite:///{found.folder}/community.sqlite")
        key = identity.secret(found.folder)
        cookies = []
        with database.sessions(engine)() as stored:
            for _ in range(given.people):
                person = identity.accept(stored, key, identity.invite(key, "contributor"))
                cookies.append(f"elm_session={identity.log_in(stored, person)}")
            stored.commit()
        with served(make(found, engine, Path(folder) / "runs")) as url:
            shown(f"pages, {given.people} people", asyncio.run(pages(url, cookies, given.seconds)))
        engine.dispose()
    gateway = [Model("elm", "", None)]
    with served(ENGINE) as direct, served(Gateway([replace(gateway[0], url=direct)], KEY).app) as through:
        for name, url in (("engine", direct), ("gateway before it", through)) * 3:
            taken = asyncio.run(streams(asking(url), given.people))
            shown(f"first piece, {given.people} streams, {name}", taken)


if __name__ == "__main__":
    main()
