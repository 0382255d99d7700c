"""Give a text: a prompt with an ideal answer, or a correction."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from elm_megatron.community import items, personal
from elm_megatron.community.settings import LANGUAGES
from elm_megatron.community.tables import (
    Item,
)
from elm_megatron.community.visit import MAX_TEXT, Visit, page


@page()
async def write(visit: Visit) -> Response:
    """The form for a prompt with an ideal answer."""
    if visit.consent() is None:
        return RedirectResponse("/consent", 303)
    return visit.page("write")


@page(form=True)
async def save_item(visit: Visit) -> Response:
    """Store a text, or a correction of a model's answer."""
    agreed = visit.consent()
    if agreed is None:
        return RedirectResponse("/consent", 303)
    form = visit.form
    kind = "correction" if form.get("rejected") else "answer"
    if not (form.get("prompt") and form.get("answer")) or form.get("may_be_used") != "yes":
        return visit.page("write", 400, message=visit.words["empty"])
    texts = [form["prompt"], form["answer"], form.get("rejected", "")]
    if max(map(len, texts)) > MAX_TEXT:
        return visit.page("write", 413, message=visit.words["too_large"])
    if found := personal.kinds("\n".join(texts[:2])):
        said = visit.words["personal"].format(what=", ".join(found))
        return visit.page("write", 400, message=said)
    chosen = form.get("language") if form.get("language") in LANGUAGES else visit.language
    item = Item(
        person_id=visit.person.id,
        consent_id=agreed.id,
        kind=kind,
        language=chosen,
        field=form.get("field", "")[:80],
        source=form.get("source", "")[:400],
        prompt=texts[0],
        answer=texts[1],
        rejected=texts[2],
        model=form.get("model", "")[:120],
        rubric=visit.services.settings.rubric["version"],
    )
    items.give(visit.database, item)
    return visit.refuse("saved", 200)


ROUTES = [
    ("GET", "/write", write),
    ("POST", "/write", save_item),
]
