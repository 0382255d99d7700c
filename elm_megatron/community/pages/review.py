"""Review others' texts, and report them."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from elm_megatron.community import items
from elm_megatron.community.tables import (
    LABELS,
)
from elm_megatron.community.visit import Visit, page


@page(least="contributor")
async def review(visit: Visit) -> Response:
    """The next text of somebody else."""
    return visit.page("review", item=items.next_to_review(visit.database, visit.person), labels=LABELS)


@page(form=True)
async def save_review(visit: Visit) -> Response:
    """Store a review and show the next text."""
    try:
        items.review(
            visit.database, visit.person, visit.number(), visit.form.get("verdict") == "accept", visit.labels
        )
    except items.Refused:
        return visit.refuse("not_found", 404)
    return RedirectResponse("/review", 303)


@page(form=True)
async def report(visit: Visit) -> Response:
    """Tell the moderators about a text."""
    try:
        items.report(visit.database, visit.person, visit.number(), visit.form.get("reason", ""))
    except items.Refused:
        return visit.refuse("not_found", 404)
    return visit.refuse("reported", 200)


ROUTES = [
    ("GET", "/review", review),
    ("POST", "/review", save_review),
    ("POST", "/report", report),
]
