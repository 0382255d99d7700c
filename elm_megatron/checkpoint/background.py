"""Work beside training: threads that take no core from it and keep no failed rank alive.

A save runs in such threads. Without `lower_priority` a checkpoint written during training costs the training
about the whole time of its hashing, because every rank waits at each collective for the slowest one
(`python -m tests.bench.checkpoint` measures both). To change this file safely, keep two properties; the tests
in tests/elm_megatron/checkpoint/test_save.py check them:

- the threads are daemons: Python must be able to end while a write hangs;
- the priority is that of the writing thread alone, and is not lowered when the rank has one core, which
  would never be idle.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any


def side_by_side(calls: list[Callable[[], Any]]) -> list[Any]:
    """Make each call in a thread of its own; returns what they return, in order.

    Raises:
        BaseException: the error of the first call that failed, once all have ended.
    """
    outcomes: list[Any] = [None] * len(calls)

    def run(number: int) -> None:
        try:
            outcomes[number] = calls[number]()
        except BaseException as error:
            outcomes[number] = error

    # Not a pool: its threads are no daemons, and a rank that failed elsewhere would wait for a hanging write.
    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


def lower_priority() -> None:
    """Let this thread, and those it starts, run only on cores that are idle.

    Linux's SCHED_IDLE, see sched(7). Nothing happens where the system does not allow it, or where this
    process may use one core only.
    """
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) == 1:
        return
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or a container that forbids it
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
