"""Moderation: reports, quarantine, counts, the audit log."""

from __future__ import annotations

import time

from sqlalchemy import func, select
from starlette.responses import RedirectResponse, Response

from elm_megatron.community import items
from elm_megatron.community.tables import (
    Audit,
    Item,
    Person,
    Report,
)
from elm_megatron.community.visit import Visit, page


@page(least="moderator")
async def admin(visit: Visit) -> Response:
    """Reports, counts and the audit log."""
    stored = visit.database
    counts = dict(stored.execute(select(Item.status, func.count(Item.id)).group_by(Item.status)).all())
    reports = list(stored.scalars(select(Report).where(Report.settled.is_(False)).order_by(Report.id)))
    held = list(stored.scalars(select(Item).where(Item.status == "quarantined").order_by(Item.id)))
    log = list(stored.scalars(select(Audit).order_by(Audit.id.desc()).limit(50)))
    people = stored.scalar(select(func.count(Person.id)))
    when = {one.id: time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.time)) for one in log}
    return visit.page("admin", counts=counts, reports=reports, held=held, log=log, people=people, when=when)


@page(least="moderator", form=True)
async def moderate(visit: Visit) -> Response:
    """Quarantine or restore a text."""
    try:
        items.moderate(visit.database, visit.person, visit.number(), visit.form.get("action", ""))
    except items.Refused:
        return visit.refuse("not_found", 404)
    return RedirectResponse("/admin", 303)


ROUTES = [
    ("GET", "/admin", admin),
    ("POST", "/admin", moderate),
]
