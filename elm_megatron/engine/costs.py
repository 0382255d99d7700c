"""What a run has cost, attempt by attempt: seconds, and energy where it can be measured.

run.json has a list `attempt_costs`, kept up while an attempt runs, and the sums `seconds`, `save_seconds` and
`kwh`. An attempt that was killed could not write its end; the next one completes its entry from the rows that
it had logged.
"""

from __future__ import annotations

import time
from typing import Any

from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import World

ATTEMPTS = "attempt_costs"
SUMS = ("seconds", "save_seconds", "kwh")


class Costs:
    """The costs of a run, as rank 0 writes them down.

    Args:
        run: the run's folder; its logs are not cut back yet.
        world: this attempt's job and restart.
        began: when this attempt began, UTC epoch seconds.
    """

    def __init__(self, run: RunFolder, world: World, began: float):
        self._earlier = _earlier(run)
        self._mine = {"job": world.job_id, "restart": world.restart, "began": began}

    def fields(self, save_seconds: float, kwh: float | None) -> dict[str, Any]:
        """Fields of run.json as of now.

        Args:
            save_seconds: how long training has stood still for checkpoints, in this attempt.
            kwh: energy of this attempt so far, over all ranks; None where nothing could be measured.
        """
        seconds = time.time() - self._mine["began"]
        mine = {**self._mine, "seconds": seconds, "save_seconds": save_seconds, "kwh": kwh}
        attempts = [*self._earlier, mine]
        return {ATTEMPTS: attempts, **{name: _sum(attempts, name) for name in SUMS}}


def _earlier(run: RunFolder) -> list[dict[str, Any]]:
    """The entries of earlier attempts, that of the last one completed."""
    record = run.read()
    if ATTEMPTS not in record:  # a run of an earlier version has sums alone
        return [{name: record[name] for name in SUMS if name in record}] if "seconds" in record else []
    attempts = [dict(attempt) for attempt in record[ATTEMPTS]]
    if attempts and "began" in attempts[-1]:
        _complete(attempts[-1], run)
    return attempts


def _complete(attempt: dict[str, Any], run: RunFolder) -> None:
    """Count an attempt up to the last row that it logged."""
    rows = [
        row
        for row in (*run.read_metrics(), *run.read_metrics(run.valid))
        if row.get("time", 0.0) > attempt["began"]
    ]
    last = max((row["time"] for row in rows), default=attempt["began"])
    attempt["seconds"] = max(attempt["seconds"], last - attempt["began"])
    measured = [row["kwh"] for row in rows if row.get("kwh") is not None]
    if measured:
        attempt["kwh"] = max(*measured, attempt["kwh"] or 0.0)


def _sum(attempts: list[dict[str, Any]], name: str) -> float | None:
    known = [attempt[name] for attempt in attempts if attempt.get(name) is not None]
    return sum(known) if known else None
