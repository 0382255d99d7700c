"""What rank 0 writes into run.json when an attempt of a run ends, and the picture of the run."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from elm_megatron.engine.plot import plot
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import Outcome

# That a run is requeued is written by the batch script, once Slurm has done it.
STATES: dict[Outcome, str] = {"cancelled": "cancelled", "done": "done"}


def finish(run: RunFolder, outcome: Outcome, **fields: Any) -> None:
    """Sum up an attempt's end.

    Args:
        fields: further fields of run.json: the step, and what the run has cost.
    """
    rows = run.read_metrics()
    valid = [row["loss"] for row in run.read_metrics(run.valid)]
    run.update(
        **({"state": STATES[outcome]} if outcome in STATES else {}),
        **fields,
        data_share=_data_share(rows),
        peak_memory_bytes=max((row["memory_bytes"] for row in rows), default=None),
        tokens_per_second=statistics.median(r["tokens_per_second"] for r in rows) if rows else None,
        straggler=_straggler(rows),
        valid_loss_first=valid[0] if valid else None,
        valid_loss=valid[-1] if valid else None,
    )
    if rows:
        plot(run)


def _data_share(rows: list[dict[str, Any]]) -> float | None:
    """What share of a step rank 0 waits for its data, the median of the logged steps."""
    shares = [row["data_seconds"] / row["step_seconds"] for row in rows if "data_seconds" in row]
    return statistics.median(shares) if shares else None


def _straggler(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The rank that was slowest most often: in what share of the logged steps, and over the median."""
    if not rows:
        return None
    (rank, times), *_ = Counter(row["slowest_rank"] for row in rows).most_common(1)
    over = statistics.median(row["slowest_over_median"] for row in rows if row["slowest_rank"] == rank)
    return {"rank": rank, "share": times / len(rows), "over_median": over}
