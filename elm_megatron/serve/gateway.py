"""The address that people and programs ask: the key is checked, prompts become ids, requests are counted.

    POST /v1/chat/completions   POST /v1/completions   GET /v1/models   GET /health

Behind it is one engine per model, chosen by the request's `model`. Nothing of a request is kept or logged.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from conf.errors import InputError
from elm_megatron.serve import counts
from elm_megatron.serve.chat import Prompts
from elm_megatron.serve.counts import Counts

MAX_BODY = 2 * 1024 * 1024
MAX_TOKENS = 1024  # where a request names no limit: a small model may never end
TIMEOUT = httpx.Timeout(600.0, connect=10.0)
CHAT, TEXT = "chat.completion", "text_completion"


@dataclass(frozen=True)
class Model:
    """One model behind the gateway.

    Attributes:
        name: what requests call it.
        url: of its engine.
        prompts: makes the ids of a prompt; None hands the request over as it is.
    """

    name: str
    url: str
    prompts: Prompts | None


class Refused(Exception):
    """A request that is not handed over, with its status."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Gateway:
    """The app, and what it counts.

    Args:
        models: by order; the first answers requests that name none.
        key: that every request must carry.
    """

    def __init__(self, models: list[Model], key: str):
        self.models = {model.name: model for model in models}
        self.key, self.counts = key, Counts()
        self.client = httpx.AsyncClient(timeout=TIMEOUT, limits=httpx.Limits(max_connections=None))
        self.app = Starlette(
            routes=[
                Route("/health", self.health),
                Route("/v1/models", self.listing),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.completions, methods=["POST"]),
            ],
            exception_handlers={Refused: refusal, httpx.HTTPError: broken, OSError: broken},
        )

    async def health(self, request: Request) -> Response:
        """Whether it listens; needs no key."""
        return JSONResponse({"status": "ok"})

    async def listing(self, request: Request) -> Response:
        """The models, as OpenAI lists them."""
        self._admit(request)
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "elm"} for name in self.models]
        return JSONResponse({"object": "list", "data": data})

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        self._admit(request)
        body = await _body(request)
        model = self._model(body)
        if model.prompts is None or model.prompts.template is None:
            return await self._ask(model, "/v1/chat/completions", body)
        try:
            ids = model.prompts.chat(body.pop("messages", None))
        except InputError as error:
            raise Refused(400, str(error)) from error
        if body.get("max_tokens") is None and "max_completion_tokens" in body:
            body["max_tokens"] = body.pop("max_completion_tokens")
        return await self._ask(model, "/v1/completions", body | {"prompt": ids}, as_chat=True)

    async def completions(self, request: Request) -> Response:
        """Continue a text."""
        self._admit(request)
        body = await _body(request)
        model = self._model(body)
        if model.prompts and isinstance(body.get("prompt", ""), str):
            body["prompt"] = model.prompts.text(body.get("prompt", ""))
        return await self._ask(model, "/v1/completions", body)

    def _admit(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self.key.encode()):
            raise Refused(401, "the key is missing or wrong; it is in serve.key of the server's run folder.")

    def _model(self, body: Mapping[str, Any]) -> Model:
        name = body.get("model") or next(iter(self.models))
        if name not in self.models:
            raise Refused(404, f"model={name}: is not served here; allowed are {', '.join(self.models)}.")
        return self.models[name]

    async def _ask(self, model: Model, path: str, body: dict[str, Any], as_chat: bool = False) -> Response:
        """Hand a request to its engine and the answer back, streamed where it asks so."""
        body = {"max_tokens": MAX_TOKENS, **body, "model": model.name}
        counting = self.counts.request()
        one = counting.__enter__()
        try:
            headers = {"authorization": f"Bearer {self.key}"}
            asked = self.client.build_request("POST", model.url + path, json=body, headers=headers)
            answer = await self.client.send(asked, stream=True)
            if answer.status_code == 200 and body.get("stream"):
                return StreamingResponse(
                    _pieces(answer, counting, one, as_chat), media_type="text/event-stream"
                )
            content = await answer.aread()
        except BaseException as error:
            counting.__exit__(type(error), error, error.__traceback__)
            raise
        one.failed = answer.status_code >= 500
        found = _parsed(content)
        one.tokens = _number((found.get("usage") or {}).get("completion_tokens"))
        counting.__exit__(None, None, None)
        if as_chat and answer.status_code == 200:
            found = chat_answer(found)
        return JSONResponse(found, answer.status_code)


async def _pieces(
    answer: httpx.Response, counting: Any, one: counts.Request, as_chat: bool
) -> AsyncIterator[str]:
    """The lines of a streamed answer; who stops reading ends it at the engine too."""
    first = True
    try:
        async for line in answer.aiter_lines():
            if not line.startswith("data:") or line.strip() == "data: [DONE]":
                yield line + "\n"
                continue
            piece = _parsed(line[5:].encode())
            choices = piece.get("choices") or []
            one.tokens += bool(
                choices and (choices[0].get("text") or choices[0].get("delta", {}).get("content"))
            )
            if as_chat:
                piece, first = chat_piece(piece, first), False
            yield f"data: {json.dumps(piece, ensure_ascii=False)}\n"
    except (httpx.HTTPError, OSError):
        one.failed = True
        said = {"error": {"message": "the engine broke off the answer", "type": "server_error"}}
        yield f"data: {json.dumps(said)}\n\n"
    finally:
        counting.__exit__(None, None, None)
        await answer.aclose()


def chat_answer(found: dict[str, Any]) -> dict[str, Any]:
    """A text completion as the answer of a conversation."""
    choices = [
        {
            "index": one.get("index", 0),
            "finish_reason": one.get("finish_reason"),
            "message": {"role": "assistant", "content": one.get("text", "")},
        }
        for one in found.get("choices", [])
    ]
    return _kept(found, CHAT) | {"choices": choices}


def chat_piece(found: dict[str, Any], first: bool) -> dict[str, Any]:
    """A piece of a streamed text completion as one of a conversation."""
    role = {"role": "assistant"} if first else {}
    choices = [
        {
            "index": one.get("index", 0),
            "finish_reason": one.get("finish_reason"),
            "delta": role | ({"content": one["text"]} if one.get("text") else {}),
        }
        for one in found.get("choices", [])
    ]
    return found if "error" in found else _kept(found, f"{CHAT}.chunk") | {"choices": choices}


def _kept(found: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {key: found[key] for key in ("id", "created", "model", "usage") if key in found} | {"object": kind}


async def _body(request: Request) -> dict[str, Any]:
    """A request's JSON object.

    Raises:
        Refused: it is none, or too long.
    """
    taken = bytearray()
    async for chunk in request.stream():
        taken += chunk
        if len(taken) > MAX_BODY:
            raise Refused(413, f"the request is longer than {MAX_BODY} bytes.")
    found = _parsed(bytes(taken))
    if not found:
        raise Refused(400, "the request is not a JSON object.")
    return found


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


async def refusal(request: Request, error: Exception) -> Response:
    """A refusal as OpenAI's clients read one."""
    status = error.status if isinstance(error, Refused) else 400
    kind = "authentication_error" if status == 401 else "invalid_request_error"
    return JSONResponse({"error": {"message": str(error), "type": kind}}, status)


async def broken(request: Request, error: Exception) -> Response:
    """The engine is gone."""
    said = {"message": "the engine does not answer; its log is in the run's logs/", "type": "server_error"}
    return JSONResponse({"error": said}, 502)
