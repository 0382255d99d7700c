"""Which training works are in an answer? Nothing of it is stored."""

from __future__ import annotations

from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from conf.errors import InputError
from elm_megatron.community.model_client import MAX_CHARACTERS
from elm_megatron.community.visit import Visit, page
from elm_megatron.trace.index import Outdated
from elm_megatron.trace.tracer import Span, Trace

MAX_WORKS = 5  # named for a passage


@page(form=True)
async def works(visit: Visit) -> Response:
    """The answer with its passages marked, and the works that hold them."""
    models, text, words = visit.services.settings.models, visit.form.get("answer", ""), visit.words
    if not text or len(text) > MAX_CHARACTERS:
        return visit.refuse("empty" if not text else "too_large")
    if not models or models[0].source is None:
        return visit.refuse("trace_failed", 404)
    source = models[0].source
    visit.release()
    try:
        trace = await run_in_threadpool(visit.services.tracers.trace, _located(visit, source), text)
    except Outdated:
        return visit.page("works", 503, command=f"python launch/trace_answer.py source={source}")
    except (InputError, OSError, ImportError):  # the run or its dataset is gone, or a library is missing
        return visit.refuse("trace_failed", 503)
    passages = [(number, *_named(span, number, words)) for number, span in enumerate(trace.spans, start=1)]
    return visit.page("works", command=None, pieces=_pieces(trace), passages=passages)


def _located(visit: Visit, source: str) -> str:
    """A run of the app's own folder of runs by its name, or the source as it is."""
    run: Path = visit.services.runs / source
    return str(run) if run.is_dir() else source


def _pieces(trace: Trace) -> list[tuple[str, list[int], bool]]:
    """(text, numbers of the passages that begin with it, whether it is marked) of each piece."""
    found, before = [], ()
    for start, stop, numbers in trace.pieces():
        begun = [number + 1 for number in numbers if number not in before]
        found.append((trace.text[start:stop], begun, bool(numbers)))
        before = numbers
    return found


def _named(span: Span, number: int, words: dict[str, str]) -> tuple[str, list[str], str]:
    """The heading of a passage, its first works, and how many more there are."""
    count = len(span.works)
    told = words["trace_work"] if count == 1 else words["trace_works"].format(count=count)
    heading = words["trace_passage"].format(number=number, tokens=span.tokens, works=told)
    named = [f"{work.title} ({work.id})" if work.title else work.id for work in span.works[:MAX_WORKS]]
    more = words["trace_more"].format(count=count - MAX_WORKS) if count > MAX_WORKS else ""
    return heading, named, more


ROUTES = [("POST", "/ask/works", works)]
