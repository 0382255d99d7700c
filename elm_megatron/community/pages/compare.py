"""Compare two models blindly, and the board."""

from __future__ import annotations

import asyncio
import random

from starlette.responses import RedirectResponse, Response

from elm_megatron.community import items, model_client, personal
from elm_megatron.community.board import board_of
from elm_megatron.community.tables import (
    CHOICES,
    Comparison,
    Vote,
)
from elm_megatron.community.visit import MAX_TEXT, Visit, page


@page()
async def compare(visit: Visit) -> Response:
    """A pair to vote on, or the form for a new prompt."""
    if visit.consent() is None:
        return RedirectResponse("/consent", 303)
    pair = items.next_to_compare(visit.database, visit.person)
    return _show_pair(visit, pair)


@page(form=True)
async def new_pair(visit: Visit) -> Response:
    """Ask two models at once, and show their answers without names."""
    agreed, models = visit.consent(), list(visit.services.settings.models)
    prompt = visit.form.get("prompt", "")
    if agreed is None:
        return RedirectResponse("/consent", 303)
    if len(models) < 2:
        return visit.refuse("compare_few", 409)
    if not prompt or len(prompt) > MAX_TEXT:
        return visit.page("compare", 400, pair=None, message=visit.words["empty"])
    if found := personal.kinds(prompt):
        said = visit.words["personal"].format(what=", ".join(found))
        return visit.page("compare", 400, pair=None, message=said)
    first, second = random.SystemRandom().sample(models, 2)
    visit.release()
    try:
        answers = await asyncio.gather(
            *(model_client.answer(one, model_client.asked(prompt)) for one in (first, second))
        )
    except model_client.Unavailable:
        return visit.page("compare", 503, pair=None, message=visit.words["model_down"])
    names = [one.name for one in models]
    pair = Comparison(
        person_id=visit.person.id,
        consent_id=agreed.id,
        language=visit.language,
        field=visit.form.get("field", "")[:80],
        prompt=prompt,
        answer_a=answers[0],
        answer_b=answers[1],
        model_a=first.name,
        model_b=second.name,
        dropped="reveals_model" if any(items.reveals(text, names) for text in answers) else "",
    )
    visit.database.add(pair)
    visit.database.flush()
    return _show_pair(visit, pair)


def _show_pair(visit: Visit, pair: Comparison | None) -> Response:
    swapped = random.SystemRandom().random() < 0.5
    return visit.page("compare", pair=pair, swapped=swapped, few=len(visit.services.settings.models) < 2)


@page(form=True)
async def save_vote(visit: Visit) -> Response:
    """Store a vote, and only then say which model was which."""
    agreed, choice = visit.consent(), visit.form.get("choice", "")
    if agreed is None:
        return RedirectResponse("/consent", 303)
    if choice not in CHOICES:
        return visit.refuse("empty")
    given = Vote(
        consent_id=agreed.id,
        choice=choice,
        swapped=visit.form.get("swapped") == "yes",
        reason=visit.form.get("reason", "")[:1000],
        rubric=visit.services.settings.rubric["version"],
    )
    try:
        items.vote(visit.database, visit.person, visit.number(), given)
    except items.Refused:
        return visit.refuse("not_found", 404)
    pair = visit.database.get(Comparison, given.comparison_id)
    sides = (pair.model_b, pair.model_a) if given.swapped else (pair.model_a, pair.model_b)
    return visit.page("message", message=visit.words["revealed"].format(left=sides[0], right=sides[1]))


@page()
async def board(visit: Visit) -> Response:
    """Ratings of the models."""
    return visit.page("board", board=board_of(visit.database))


ROUTES = [
    ("GET", "/compare", compare),
    ("POST", "/compare", new_pair),
    ("POST", "/vote", save_vote),
    ("GET", "/board", board),
]
