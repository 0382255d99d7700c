"""What was asked of a server: counts, speed, and since when nobody asks. Texts are never kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

RECENT_SECONDS = 60.0


@dataclass
class Request:
    """One request while it is answered; the gateway counts its tokens."""

    began: float
    tokens: int = 0
    failed: bool = False


@dataclass
class Counts:
    """Of one server.

    Attributes:
        requests: answered or failed so far.
        failed: those that the engine did not answer.
        tokens: generated so far.
        open: requests being answered now.
        last: when the last request came or ended, UTC epoch seconds.
    """

    requests: int = 0
    failed: int = 0
    tokens: int = 0
    open: int = 0
    last: float = field(default_factory=time.time)
    _recent: deque[tuple[float, int, float]] = field(default_factory=deque)

    @contextmanager
    def request(self) -> Iterator[Request]:
        """Count a request from its begin to the end of its answer."""
        one = Request(time.monotonic())
        self.open, self.last = self.open + 1, time.time()
        try:
            yield one
        except Exception:
            one.failed = True
            raise
        finally:
            now = time.monotonic()
            self.open, self.last = self.open - 1, time.time()
            self.requests, self.failed = self.requests + 1, self.failed + one.failed
            self.tokens += one.tokens
            self._recent.append((now, one.tokens, now - one.began))

    @property
    def idle_seconds(self) -> float:
        """Since when nothing was asked; 0 while a request is open."""
        return 0.0 if self.open else max(0.0, time.time() - self.last)

    def shown(self) -> dict[str, Any]:
        """For the status file; `tokens_per_second` is that of one request, over those of the last minute."""
        now = time.monotonic()
        while self._recent and now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()
        seconds = sum(one[2] for one in self._recent)
        speed = sum(one[1] for one in self._recent) / seconds if seconds else None
        return {
            "requests": self.requests,
            "failed": self.failed,
            "open": self.open,
            "tokens": self.tokens,
            "tokens_per_second": speed and round(speed, 1),
            "last_request": self.last,
        }
