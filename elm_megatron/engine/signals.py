"""Signals as flags: ranks finish their step, agree on what was asked, save together, and leave.

USR2 means save and requeue (Slurm, before the time limit); SIGTERM and SIGINT mean save and exit.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Literal

Request = Literal["requeue", "stop"]
CODES: dict[str, int] = {"requeue": 1, "stop": 2}


class Signals:
    """Remembers the strongest request this rank has received since `install`."""

    def __init__(self) -> None:
        self.code = 0

    def install(self) -> None:
        """Take over USR2, SIGTERM and SIGINT in the main thread."""
        signal.signal(signal.SIGUSR2, self._on_requeue)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)

    def _on_requeue(self, number: int, frame: FrameType | None) -> None:
        self.code = max(self.code, CODES["requeue"])

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.code = max(self.code, CODES["stop"])


def request_of(code: int) -> Request | None:
    """The request behind the largest code of all ranks."""
    return next((name for name, value in CODES.items() if value == code), None)
