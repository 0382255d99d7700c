"""One request: its login, language and form, and what every page checks before it is served."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import Session as Database
from sqlalchemy.orm import sessionmaker
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from elm_megatron.community import guards, identity, items, oidc
from elm_megatron.community.settings import LANGUAGES, Settings
from elm_megatron.community.tables import Consent, Person, Session
from elm_megatron.trace.tracer import Tracers

COOKIE = "elm_session"
LANGUAGE_COOKIE = "elm_language"
MAX_TEXT = 8_000  # characters of a prompt or an answer


@dataclass
class Services:
    """What the pages share: one object on the app's state."""

    settings: Settings
    key: bytes
    open: sessionmaker[Database]
    templates: Environment
    rates: guards.Rates
    runs: Path
    streams: guards.Streams = field(default_factory=guards.Streams)
    provider: oidc.Provider | None = None
    tracers: Tracers = field(default_factory=Tracers)


class Visit:
    """One request: its login, language and database session.

    Args:
        known: look its login up; not for a page that says that the database cannot be asked.
    """

    def __init__(self, request: Request, services: Services, stored: Database, known: bool = True):
        self.request, self.services, self.database = request, services, stored
        self.cookie = request.cookies.get(COOKIE)
        self.login: Session | None = identity.login_of(stored, self.cookie) if known else None
        self.person: Person | None = stored.get(Person, self.login.person_id) if self.login else None
        wanted = request.cookies.get(LANGUAGE_COOKIE) or request.headers.get("accept-language", "")[:2]
        self.language = wanted if wanted in LANGUAGES else "en"
        self.words = services.settings.words[self.language]
        self.form: dict[str, str] = {}
        self.labels: list[str] = []

    def consent(self) -> Consent | None:
        """What the person agreed to, when it is the present version of the text."""
        return items.consent_of(self.database, self.person, self.services.settings.consent["version"])

    def release(self) -> None:
        """Give the connection back before a wait: the pool has few, and waiting for one stops the app."""
        self.database.commit()

    def number(self) -> int:
        """The number of the item that the form names; -1 when it is none."""
        text = self.form.get("item", "")
        return int(text) if text.isdecimal() and len(text) < 10 else -1

    def page(self, template: str, status: int = 200, **values: object) -> HTMLResponse:
        """Render a page; every text in it is escaped."""
        text = self.services.templates.get_template(f"{template}.html").render(
            words=self.words,
            language=self.language,
            person=self.person,
            may=lambda least: self.person is not None and identity.may(self.person, least),
            csrf=self.login.csrf if self.login else "",
            path=self.request.url.path,
            settings=self.services.settings,
            form=self.form,
            provider=self.services.provider,
            **values,
        )
        return HTMLResponse(text, status)

    def refuse(self, word: str, status: int = 400) -> HTMLResponse:
        """A page with one sentence."""
        return self.page("message", status, message=self.words.get(word, word))


Page = Callable[[Visit], Awaitable[Response]]


def page(least: str | None = "contributor", form: bool = False) -> Callable[[Page], Callable]:
    """Make an endpoint of a page.

    Args:
        least: the role it needs; None for a page without login.
        form: it takes a form, whose token and rate are checked.
    """

    def decorate(function: Page) -> Callable:
        async def endpoint(request: Request) -> Response:
            services: Services = request.app.state.services
            with services.open() as stored:
                try:
                    visit = Visit(request, services, stored)
                    if (refusal := await _refusal(visit, least, form)) is not None:
                        return refusal
                    answer = await function(visit)
                    stored.commit()
                    return answer
                except guards.TooLarge:
                    return visit.refuse("too_large", 413)
                except guards.TooMany:
                    return visit.refuse("too_fast", 429)
                except IntegrityError:  # the same was stored in this moment, by a second click
                    stored.rollback()
                    return visit.refuse("once", 409)
                except (OperationalError, NoConnection):  # a full disk, or a lock that is not released
                    stored.rollback()
                    return Visit(request, services, stored, known=False).refuse("disk", 503)

        return endpoint

    return decorate


async def _refusal(visit: Visit, least: str | None, form: bool) -> Response | None:
    """Why a request is not served; None when it is."""
    if least is not None:
        if visit.person is None:
            return RedirectResponse("/", 303) if not form else visit.refuse("need_invitation", 401)
        if not identity.may(visit.person, least):
            return visit.refuse("not_allowed", 403)
    if form:
        visit.release()  # a form may come slowly
        data = await visit.request.form()
        visit.form = {key: _typed(value) for key, value in data.items() if isinstance(value, str)}
        visit.labels = [value for value in data.getlist("labels") if isinstance(value, str)]
        expected = visit.login.csrf if visit.login else None
        if expected is not None and not guards.same_token(expected, visit.form.get("csrf")):
            return visit.refuse("bad_request", 403)
        who = (
            visit.person.pseudonym
            if visit.person
            else (visit.request.client.host if visit.request.client else "-")
        )
        limit = guards.FORMS_A_MINUTE if visit.person else guards.LOGINS_A_MINUTE
        if not visit.services.rates.allows(who, limit):
            return visit.refuse("too_fast", 429)
    return None


def _typed(text: str) -> str:
    """A field as it was typed: browsers send line breaks as CR LF, and PostgreSQL stores no NUL."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").strip()
