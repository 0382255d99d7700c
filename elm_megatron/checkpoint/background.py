"""Work beside training: threads that take no core from it and keep no failed rank alive."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any


def side_by_side(calls: list[Callable[[], Any]]) -> list[Any]:
    """What the calls return, each made in a thread; the error of the first that failed, once all have ended.

    Daemon threads, unlike a pool's: a rank that fails elsewhere must be gone, though a write may hang.
    """
    outcomes: list[Any] = [None] * len(calls)

    def run(number: int) -> None:
        try:
            outcomes[number] = calls[number]()
        except BaseException as e:
            outcomes[number] = e

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


def give_way() -> None:
    """Let this thread, and those it starts, run only where a core would idle, if the rank has several.

    Ranks that compute on all their cores wait at every product for the slowest of them; a writer that takes
    turns with one costs the training all its time.
    """
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) == 1:
        return  # it may never idle
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or a container that forbids it
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
