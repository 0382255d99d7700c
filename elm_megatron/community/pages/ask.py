"""Ask the model; nothing of it is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.responses import PlainTextResponse, Response, StreamingResponse

from elm_megatron.community import guards, model_client
from elm_megatron.community.settings import Endpoint
from elm_megatron.community.visit import MAX_TEXT, Visit, page


@page()
async def ask(visit: Visit) -> Response:
    """The chat page."""
    return visit.page("ask", answer=None)


@page(form=True)
async def answer(visit: Visit) -> Response:
    """One answer as a page, for a browser without scripts. Nothing is stored."""
    model, question = _first_model(visit), visit.form.get("question", "")
    if not question or len(question) > MAX_TEXT:
        return visit.page("ask", answer=None, message=visit.words["empty" if not question else "too_large"])
    if model is None:
        return visit.page("ask", 503, answer=None, message=visit.words["model_down"])
    visit.release()
    try:
        with visit.services.streams.one(visit.person.pseudonym):
            text = await model_client.answer(model, model_client.asked(question))
    except model_client.Unavailable:
        return visit.page("ask", 503, answer=None, message=visit.words["model_down"])
    return visit.page("ask", answer=text, model=model.name)


@page(form=True)
async def stream(visit: Visit) -> Response:
    """One answer as text that grows; `static/ask.js` shows it. Nothing is stored."""
    model, question = _first_model(visit), visit.form.get("question", "")
    down = visit.words["model_down"]
    if not question or len(question) > MAX_TEXT:
        return PlainTextResponse(visit.words["empty" if not question else "too_large"], 400)
    if model is None:
        return PlainTextResponse(down, 503)

    place = visit.services.streams.one(visit.person.pseudonym)
    try:
        place.__enter__()
    except guards.TooMany:
        return PlainTextResponse(visit.words["too_fast"], 429)

    async def pieces() -> AsyncIterator[str]:
        try:
            async for piece in model_client.stream(model, model_client.asked(question)):
                yield piece
        except model_client.Unavailable:
            yield f"\n[{down}]"
        finally:
            place.__exit__(None, None, None)

    return StreamingResponse(pieces(), media_type="text/plain; charset=utf-8")


def _first_model(visit: Visit) -> Endpoint | None:
    models = visit.services.settings.models
    return models[0] if models else None


ROUTES = [
    ("GET", "/ask", ask),
    ("POST", "/ask", answer),
    ("POST", "/ask/stream", stream),
]
