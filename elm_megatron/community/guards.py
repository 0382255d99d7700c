"""What every answer and every form of the app goes through: headers, sizes, rates and form tokens."""

from __future__ import annotations

import hmac
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 64 * 1024  # bytes of a form
FORMS_A_MINUTE = 40
LOGINS_A_MINUTE = 10
OF_ONE, OF_ALL = 2, 200  # answers that are being written at the same time

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "strict-transport-security": "max-age=31536000",
    "cache-control": "no-store",
}


class TooLarge(Exception):
    """A request has a larger body than `MAX_BODY`."""


class TooMany(Exception):
    """As many answers are being written as there may be."""


class Headers:
    """Middleware: the security headers on every answer, and a limit on what a request may send."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY:
                raise TooLarge
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/static/"):
                    headers["cache-control"] = "max-age=3600"
            await send(message)

        await self.app(scope, limited, with_headers)


class Rates:
    """Counts forms by person; in memory, so that no address is written anywhere."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = defaultdict(deque)

    def allows(self, key: str, a_minute: int, now: float | None = None) -> bool:
        """Whether one more is allowed now; it is then counted."""
        now = time.monotonic() if now is None else now
        times = self._times[key]
        while times and now - times[0] > 60:
            times.popleft()
        if len(times) >= a_minute:
            return False
        times.append(now)
        if len(self._times) > 10_000:  # forget who was not here in the last minute
            for other in [one for one, seen in self._times.items() if not seen or now - seen[-1] > 60]:
                del self._times[other]
        return True


class Streams:
    """Counts the answers that are being written, so that one person cannot hold the model for everybody."""

    def __init__(self, of_one: int = OF_ONE, of_all: int = OF_ALL) -> None:
        self._open: Counter[str] = Counter()
        self._of_one, self._of_all = of_one, of_all

    @contextmanager
    def one(self, person: str) -> Iterator[None]:
        """Hold a place while an answer is written.

        Raises:
            TooMany: this person, or all of them, have as many as there may be.
        """
        if self._open[person] >= self._of_one or self._open.total() >= self._of_all:
            raise TooMany
        self._open[person] += 1
        try:
            yield
        finally:
            self._open[person] -= 1
            if not self._open[person]:
                del self._open[person]


def same_token(expected: str, given: str | None) -> bool:
    """Whether a form carries its login's token, compared in constant time."""
    return hmac.compare_digest(expected, given or "")
