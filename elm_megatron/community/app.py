"""The web app of students and staff: ask, write, compare, review, withdraw.

    python launch/community.py                 serves it on http://127.0.0.1:8601
    python launch/community.py invite=reviewer prints an invitation link

Server-rendered, torch-free. `pages/` has the pages, `items.py` the rules, `visit.py` and `guards.py` what
protects every form.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, select_autoescape
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from elm_megatron.community import database, guards, identity, oidc
from elm_megatron.community.pages import admin, ask, compare, front, give, mine, review, works
from elm_megatron.community.settings import Settings
from elm_megatron.community.visit import Services

HERE = Path(__file__).parent
ROOMS = (front, ask, works, give, review, compare, mine, admin)


def make(settings: Settings, engine: Engine, runs: Path) -> Starlette:
    """The app.

    Args:
        settings: of its folder.
        engine: an opened database.
        runs: folder of the runs, for what a withdrawal names.
    """
    loader = FileSystemLoader(HERE / "templates")
    templates = Environment(loader=loader, autoescape=select_autoescape(default=True))
    routes = [
        Route(path, endpoint, methods=[method]) for room in ROOMS for method, path, endpoint in room.ROUTES
    ]
    static = Mount("/static", StaticFiles(directory=HERE / "static"))
    app = Starlette(
        routes=[*routes, static],
        middleware=[Middleware(guards.Headers)],
        exception_handlers={404: front.not_found, 405: front.not_found},
    )
    key, sessions = identity.secret(settings.folder), database.sessions(engine)
    app.state.services = Services(
        settings, key, sessions, templates, guards.Rates(), runs, provider=oidc.read(settings.folder)
    )
    return app
