"""HTTP for the harvest: bounded answers, known hosts only, a rate limit, and retries that wait."""

from __future__ import annotations

import datetime
import random
import re
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import httpx2

from conf.schema.preprocess import MEGABYTE

RETRY = (408, 425, 429, 500, 502, 503, 504, *range(520, 525), 529)  # 520 and above are those of proxies
LONGEST_WAIT = 300.0  # seconds, whatever a server asks for
REDIRECTS = 5
PATIENCE = 20  # an answer may take as many time-outs altogether, however busily it drips


class Refused(Exception):
    """An answer that is not used.

    Attributes:
        reason: a short word with underscores; the message too.
    """

    def __init__(self, reason: str) -> None:
        """The message of the exception is the reason."""
        super().__init__(reason)
        self.reason = reason


class Unreachable(Exception):
    """A server that did not answer, or only with errors, after all retries."""


class Pace:
    """A rate that several `Web`s keep together."""

    def __init__(self, rate: float) -> None:
        """Requests per second at most."""
        self._interval, self._next = 1 / rate, 0.0

    def wait(self) -> None:
        """Wait until the next request may go out."""
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + self._interval


class _Bounded(httpx2.BaseTransport):
    """Cuts off an answer that grows past a bound, and refuses compressed ones, whose size nobody knows."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._inner, self._limit, self._seconds = httpx2.HTTPTransport(), limit, seconds

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = self._inner.handle_request(request)
        if response.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            response.close()
            raise Refused("answer_compressed")
        stream = _BoundedStream(response.stream, self._limit, time.monotonic() + self._seconds)
        return httpx2.Response(response.status_code, headers=response.headers, stream=stream)

    def close(self) -> None:
        self._inner.close()


class _BoundedStream(httpx2.SyncByteStream):
    def __init__(self, inner: httpx2.SyncByteStream, limit: int, deadline: float) -> None:
        self._inner, self._limit, self._deadline = inner, limit, deadline

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._inner:
            size += len(part)
            if size > self._limit:
                raise Refused("answer_too_large")
            if time.monotonic() > self._deadline:
                raise httpx2.ReadTimeout("the answer does not end")
            yield part

    def close(self) -> None:
        self._inner.close()


class Web:
    """Requests to a few known hosts.

    Attributes:
        client: the underlying client, which checks sizes but neither hosts nor rate.
        allows: whether an address may be asked for, by the robots.txt of its host; None asks for all.
    """

    allows: Callable[[str], bool] | None = None

    def __init__(
        self, hosts: set[str], limit_mb: int, timeout: float, retries: int, pace: Pace, user_agent: str
    ) -> None:
        """Talk to `hosts` only.

        Args:
            hosts: host names, with a port where it is not the usual one.
            limit_mb: largest answer, 10^6 bytes.
            timeout: seconds without a byte; a whole answer may take `PATIENCE` times as long.
            retries: further attempts after the first.
            pace: when the next request may go out.
            user_agent: says who asks.
        """
        self._hosts, self._retries, self._pace = hosts, retries, pace
        headers = {"user-agent": user_agent, "accept-encoding": "identity"}
        transport = _Bounded(limit_mb * MEGABYTE, PATIENCE * timeout)
        self.client = httpx2.Client(transport=transport, timeout=timeout, headers=headers)

    def attempt(self, request):
        """Call ``request()`` under the rate limit, again after trouble that may pass.

        Raises:
            Unreachable: it did not pass.
            Refused: the answer is not to be used.
        """
        trouble = ""
        for attempt in range(self._retries + 1):
            self._pace.wait()
            wait = None
            try:
                return request()
            except httpx2.HTTPStatusError as error:
                status = error.response.status_code
                if status not in RETRY:
                    raise Refused(f"http_{status}") from error
                trouble, wait = f"HTTP status {status}", _retry_after(error.response)
            except httpx2.TransportError as error:
                trouble = f"{type(error).__name__}: {error}"
            if attempt < self._retries:
                backoff = 2**attempt * random.uniform(0.5, 1.0)
                time.sleep(min(backoff if wait is None else wait, LONGEST_WAIT))
        raise Unreachable(trouble)

    def check_host(self, url: str, reason: str) -> None:
        """Refuse, with a reason, an address of another host or scheme."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.netloc not in self._hosts:
            raise Refused(reason)

    def get(self, url: str) -> httpx2.Response:
        """GET a page or a file, following redirects among the known hosts.

        Raises:
            Refused: another host or scheme, too many redirects, too large, a status such as 404, or an
                address that `allows` refuses (``robots_txt``).
            Unreachable: no answer.
        """
        for _ in range(REDIRECTS):
            self.check_host(url, "foreign_address")
            if self.allows is not None and not self.allows(url):
                raise Refused("robots_txt")

            def request(address: str = url) -> httpx2.Response:
                response = self.client.get(address)
                if not response.has_redirect_location:
                    response.raise_for_status()
                return response

            response = self.attempt(request)
            if not response.has_redirect_location:
                return response
            url = urljoin(url, response.headers["location"])
        raise Refused("too_many_redirects")


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds asked for by a Retry-After header, which holds them or a date."""
    value = response.headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", value.strip()):
        return float(value)
    try:
        left = parsedate_to_datetime(value) - datetime.datetime.now(datetime.UTC)
    except (TypeError, ValueError):  # none, no date, or one without a time zone
        return None
    return max(0.0, left.total_seconds())
