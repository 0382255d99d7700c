"""Asks a served model: the OpenAI-compatible chat endpoint, streamed.

An answer that cannot be had is `Unavailable`, with a sentence for the page.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence

import httpx2 as httpx

from elm_megatron.community.settings import Endpoint

CONNECT_SECONDS = 5.0
READ_SECONDS = 120.0
MAX_TOKENS = 400
MAX_CHARACTERS = 20_000

Message = dict[str, str]


def asked(question: str) -> list[Message]:
    """A conversation of one question."""
    return [{"role": "user", "content": question}]


class Unavailable(Exception):
    """The model's server does not answer."""


async def stream(
    model: Endpoint, messages: Sequence[Message], temperature: float = 0.7
) -> AsyncIterator[str]:
    """The answer, piece by piece.

    Raises:
        Unavailable: the server is not there, refuses, or breaks off.
    """
    body = {
        "model": model.model or model.name,
        "messages": list(messages),
        "stream": True,
        "max_tokens": MAX_TOKENS,
        "temperature": temperature,
    }
    limits = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    length = 0
    try:
        key = model.key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with (
            httpx.AsyncClient(timeout=limits) as client,
            client.stream("POST", f"{model.url}/v1/chat/completions", json=body, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise Unavailable(f"the model's server answered with status {answer.status_code}")
            async for line in answer.aiter_lines():
                piece = _piece(line)
                length += len(piece)
                if length > MAX_CHARACTERS:
                    return
                if piece:
                    yield piece
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise Unavailable("the model's server does not answer") from error


async def answer(model: Endpoint, messages: Sequence[Message], temperature: float = 0.7) -> str:
    """The whole answer."""
    return "".join([piece async for piece in stream(model, messages, temperature)]).strip()


def _piece(line: str) -> str:
    """The text in one line of a server-sent event."""
    if not line.startswith("data:") or line.strip() == "data: [DONE]":
        return ""
    try:
        choice = json.loads(line[5:])["choices"][0]
        return choice.get("delta", {}).get("content") or ""
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
