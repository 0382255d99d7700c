"""Pages for everybody, and consent: front page, about, log in, language."""

from __future__ import annotations

from sqlalchemy import func, select
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from elm_megatron.community import guards, identity, items, oidc
from elm_megatron.community.settings import LANGUAGES
from elm_megatron.community.tables import (
    Consent,
    Person,
)
from elm_megatron.community.visit import COOKIE, LANGUAGE_COOKIE, Visit, page

YEAR = 365 * 86400
OIDC_COOKIE = "elm_oidc"


@page(least=None)
async def front(visit: Visit) -> Response:
    """What the app is; with a login, the ways to take part."""
    return visit.page("front")


@page(least=None)
async def about(visit: Visit) -> Response:
    """The rubric and the consent text."""
    return visit.page("about")


@page(least=None)
async def health(visit: Visit) -> Response:
    """For a monitor: whether the database answers."""
    visit.database.execute(select(func.count(Person.id)))
    return PlainTextResponse("ok")


@page(least=None)
async def invitation(visit: Visit) -> Response:
    """The page behind an invitation link; its button logs in, so that a preview of the link does not."""
    return visit.page("invitation", invitation=visit.request.path_params["invitation"])


@page(least=None, form=True)
async def log_in(visit: Visit) -> Response:
    """Take an invitation."""
    person = identity.accept(visit.database, visit.services.key, visit.form.get("invitation", ""))
    if person is None:
        return visit.refuse("invitation_bad", 403)
    return logged_in(visit, person)


def logged_in(visit: Visit, person: Person) -> Response:
    """Begin a login with a new number, whatever cookie came with the request."""
    answer = RedirectResponse("/consent", 303)
    value = identity.log_in(visit.database, person)
    answer.set_cookie(
        COOKIE, value, max_age=identity.LOGIN_SECONDS, secure=True, httponly=True, samesite="lax", path="/"
    )
    return answer


@page(least=None)
async def to_institution(visit: Visit) -> Response:
    """Send a person to the institution, to log in there."""
    provider = visit.services.provider
    if provider is None:
        return visit.refuse("not_found", 404)
    visit.release()
    try:
        address, kept = await provider.begin(visit.services.key)
    except oidc.Refused:
        return visit.refuse("institution_down", 503)
    answer = RedirectResponse(address, 303)
    guarded = {"secure": True, "httponly": True, "samesite": "lax", "path": oidc.CALLBACK}
    answer.set_cookie(OIDC_COOKIE, kept, max_age=oidc.SECONDS, **guarded)
    return answer


@page(least=None)
async def from_institution(visit: Visit) -> Response:
    """Take the institution's answer: who this is."""
    provider, asked = visit.services.provider, visit.request.query_params
    if provider is None:
        return visit.refuse("not_found", 404)
    who = visit.request.client.host if visit.request.client else "-"
    if not visit.services.rates.allows(who, guards.LOGINS_A_MINUTE):
        return visit.refuse("too_fast", 429)
    visit.release()
    cookie = visit.request.cookies.get(OIDC_COOKIE, "")
    try:
        subject = await provider.subject(
            visit.services.key, cookie, asked.get("state", ""), asked.get("code", "")
        )
    except oidc.Refused:
        return visit.refuse("institution_refused", 403)
    person = identity.known(visit.database, visit.services.key, provider.issuer, subject)
    answer = logged_in(visit, person)
    answer.delete_cookie(OIDC_COOKIE, path=oidc.CALLBACK, secure=True, httponly=True, samesite="lax")
    return answer


@page(form=True)
async def log_out(visit: Visit) -> Response:
    """End the login."""
    identity.log_out(visit.database, visit.cookie or "")
    answer = RedirectResponse("/", 303)
    answer.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")
    return answer


@page(least=None)
async def language(visit: Visit) -> Response:
    """Change the language of the pages; goes back to the front page."""
    wanted = visit.request.path_params["language"]
    answer = RedirectResponse("/", 303)
    if wanted in LANGUAGES:
        answer.set_cookie(LANGUAGE_COOKIE, wanted, max_age=YEAR, secure=True, httponly=True, samesite="lax")
    return answer


async def not_found(request: Request, error: Exception) -> Response:
    """A page that does not exist."""
    services = request.app.state.services
    with services.open() as stored:
        status = getattr(error, "status_code", 404)
        return Visit(request, services, stored, known=False).refuse("not_found", status)


@page()
async def consent(visit: Visit) -> Response:
    """The text and the choices of a person."""
    newest = visit.consent()
    return visit.page("consent", newest=newest)


@page(form=True)
async def save_consent(visit: Visit) -> Response:
    """Store a choice; the choices before it stay on the items given under them."""
    ticks = {name: visit.form.get(name) == "yes" for name in ("training", "publication", "contact")}
    version = visit.services.settings.consent["version"]
    visit.database.add(Consent(person_id=visit.person.id, version=version, **ticks))
    return RedirectResponse("/", 303)


def _consent(visit: Visit) -> Consent | None:
    return items.consent_of(visit.database, visit.person, visit.services.settings.consent["version"])


ROUTES = [
    ("GET", "/", front),
    ("GET", "/about", about),
    ("GET", "/health", health),
    ("GET", "/invitation/{invitation}", invitation),
    ("POST", "/log-in", log_in),
    ("GET", "/log-in/institution", to_institution),
    ("GET", oidc.CALLBACK, from_institution),
    ("POST", "/log-out", log_out),
    ("GET", "/language/{language}", language),
    ("GET", "/consent", consent),
    ("POST", "/consent", save_consent),
]
