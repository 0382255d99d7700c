"""All that a person gave: see it, download it, withdraw it."""

from __future__ import annotations

import json

from sqlalchemy import select
from starlette.responses import JSONResponse, Response

from elm_megatron.community import items, lineage
from elm_megatron.community.tables import (
    Comparison,
    Consent,
    Item,
    Vote,
)
from elm_megatron.community.visit import Visit, page


@page()
async def mine(visit: Visit) -> Response:
    """All that a person gave, with its status."""
    return visit.page("mine", given=_given(visit), consents=_consents(visit))


@page()
async def download(visit: Visit) -> Response:
    """The same as JSON."""
    columns = (
        "id",
        "kind",
        "language",
        "field",
        "source",
        "prompt",
        "answer",
        "rejected",
        "status",
        "created",
    )
    data = {
        "pseudonym": visit.person.pseudonym,
        "consents": [
            {key: getattr(one, key) for key in ("version", "training", "publication", "contact", "given")}
            for one in _consents(visit)
        ],
        "items": [{key: getattr(one, key) for key in columns} for one in _given(visit)],
        "comparisons": [
            {key: getattr(one, key) for key in ("id", "language", "field", "prompt", "withdrawn", "created")}
            for one in _comparisons(visit)
        ],
        "votes": [
            {
                "comparison": one.comparison_id,
                "choice": one.choice,
                "reason": one.reason,
                "created": one.created,
            }
            for one in _votes(visit)
        ],
    }
    headers = {"content-disposition": 'attachment; filename="my-data.json"'}
    return JSONResponse(json.loads(json.dumps(data)), headers=headers)


@page(form=True)
async def withdraw(visit: Visit) -> Response:
    """Take back one text or everything, and name what was made with it."""
    folder = visit.services.settings.folder / "exports"
    if visit.form.get("item") == "all":
        names = items.exported_names(visit.database, visit.person)
        items.withdraw_person(visit.database, visit.person)
    else:
        item = visit.database.get(Item, visit.number())
        if item is None or item.person_id != visit.person.id:
            return visit.refuse("not_found", 404)
        names = [f"item {item.id}"]
        items.withdraw_item(visit.database, item, visit.person.pseudonym)
    visit.release()  # it is stored, whatever is found below
    lineage.note_withdrawn(folder, names)
    used = lineage.used_in(folder, visit.services.runs, names)
    return visit.page("withdrawn", used=[place.name for place in used])


def _given(visit: Visit) -> list[Item]:
    return list(
        visit.database.scalars(select(Item).where(Item.person_id == visit.person.id).order_by(Item.id))
    )


def _comparisons(visit: Visit) -> list[Comparison]:
    mine_ = select(Comparison).where(Comparison.person_id == visit.person.id).order_by(Comparison.id)
    return list(visit.database.scalars(mine_))


def _votes(visit: Visit) -> list[Vote]:
    return list(
        visit.database.scalars(select(Vote).where(Vote.person_id == visit.person.id).order_by(Vote.id))
    )


def _consents(visit: Visit) -> list[Consent]:
    mine_ = select(Consent).where(Consent.person_id == visit.person.id).order_by(Consent.id)
    return list(visit.database.scalars(mine_))


ROUTES = [
    ("GET", "/mine", mine),
    ("GET", "/mine.json", download),
    ("POST", "/withdraw", withdraw),
]
