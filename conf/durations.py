"""How Slurm writes a span of time, read in one place for settings and for what Slurm's commands print."""

from __future__ import annotations

import re

# sbatch(1): minutes, M:S, H:M:S, D-H, D-H:M and D-H:M:S.
SPAN = re.compile(r"(?:(?P<days>\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


def seconds(text: str) -> int | None:
    """Seconds of a span as Slurm writes it; None for one of its words, such as UNLIMITED.

    A fraction of a second, which squeue and sacct may add, is dropped.
    """
    match = SPAN.fullmatch(text.strip().partition(".")[0])
    if not match:
        return None
    days, *texts = match.groups()
    parts = [int(part) for part in texts if part is not None]
    if days is None and len(parts) < 3:
        parts.insert(0, 0)  # minutes, or minutes and seconds
    hours, minutes, rest = (*parts, 0, 0)[:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest
