"""A history of jobs that never ran, for the tests of speed and the pictures of the report: no real user's."""

from __future__ import annotations

import random
from collections.abc import Iterator

from slurm.tracker.sacct import Attempt

STATES = ("COMPLETED",) * 80 + ("FAILED",) * 8 + ("TIMEOUT",) * 5 + ("CANCELLED",) * 5 + ("PREEMPTED",) * 2


def attempts(count: int, end: int, days: float, users: int = 40) -> Iterator[Attempt]:
    """`count` finished attempts, submitted evenly over the `days` before `end` (UTC epoch seconds)."""
    chance = random.Random(8)
    for number in range(count):
        submit = int(end - days * 86400 * (1 - number / count))
        partition, rate = chance.choice(
            (("gpu_h100", 2400), ("gpu_h100", 2400), ("gpu_a100", 5200), ("rome", 400))
        )
        gpus = 0 if partition == "rome" else chance.choice((1, 1, 2, 4, 4, 8))
        wait = int(chance.expovariate(1 / rate))
        elapsed = min(end - submit - wait, int(chance.lognormvariate(7.5, 1.2)))
        started = elapsed > 0
        yield Attempt(
            cluster="invented",
            job_id=str(1000 + number),
            shown_id=str(1000 + number),
            user=f"user{int(chance.paretovariate(0.7)) % users:02d}",
            account=chance.choice(("eur", "eur", "linguistics", "economics")),
            partition=partition,
            qos="normal",
            state=chance.choice(STATES) if started else "CANCELLED",
            exit_code="0:0",
            submit=submit,
            eligible=submit,
            start=submit + wait if started else None,
            end=submit + wait + elapsed if started else min(end, submit + wait),
            elapsed=max(0, elapsed),
            limit=chance.choice((3600, 14400, 86400)),
            nodes=max(1, gpus // 4),
            cpus=gpus * 16 or 32,
            gpus=gpus,
            memory_mib=gpus * 184320 or 57344,
            energy_joules=elapsed * max(1, gpus) * 450 if started else None,
            comment="",
            name="train",
        )
