"""What rank 0 writes into run.json when a life of a run ends, and the picture of the run."""

from __future__ import annotations

import statistics

from elm_megatron.engine.plot import plot
from elm_megatron.run_folder import RunFolder
from elm_megatron.world import Outcome

STATES: dict[Outcome, str] = {"requeue": "requeued", "cancelled": "cancelled", "done": "done"}


def finish(
    run: RunFolder, outcome: Outcome, step: int, seconds: float, kwh: float | None, energy_method: str
) -> None:
    """Sum up; seconds and energy add to those of earlier lives.

    Args:
        step: updates done.
        seconds: of this life's loop.
        kwh: energy of this life, None where nothing could be measured.
        energy_method: how it was measured.
    """
    before, rows = run.read(), run.read_metrics()
    valid = [row["loss"] for row in run.read_metrics(run.valid)]
    run.update(
        state=STATES[outcome],
        step=step,
        seconds=before.get("seconds", 0.0) + seconds,
        kwh=None if kwh is None else (before.get("kwh") or 0.0) + kwh,
        energy_method=energy_method,
        peak_memory_bytes=max((row["memory_bytes"] for row in rows), default=None),
        tokens_per_second=statistics.median(r["tokens_per_second"] for r in rows) if rows else None,
        valid_loss_first=valid[0] if valid else None,
        valid_loss=valid[-1] if valid else None,
    )
    if rows:
        plot(run)
