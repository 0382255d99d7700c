"""`elm-queue budget`: what each account spent and has bound, how fast it spends, and where that leads.

Spent is what its jobs held in the period, by the rates of conf/cluster/*.yaml. Bound ("committed") is what
its running jobs may still use up to their time limit and what its waiting jobs would use with theirs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from slurm.tracker.history import DAY, HELD, RUNNING, History
from slurm.tracker.rates import Rates
from slurm.tracker.show import quantity, table
from slurm.tracker.squeue import Job

BURN_DAYS = 7


@dataclass
class Account:
    """One account, all figures in budget units.

    Attributes:
        spent: in the whole period.
        recent: in the last `BURN_DAYS` days of it.
        running, waiting: bound by running and waiting jobs.
        unpriced: jobs without a rate or a time limit, and which therefore count nowhere.
    """

    name: str
    spent: float = 0.0
    recent: float = 0.0
    running: float = 0.0
    waiting: float = 0.0
    unpriced: int = 0

    def burn(self, days: float) -> float:
        """Units a day over the last week, or over the period where that is shorter."""
        return self.recent / min(days, BURN_DAYS)


def accounts(history: History, jobs: list[Job], rates: Rates, days: float, now: float) -> list[Account]:
    """Every account with a job in the last `days` days or in the queue, the dearest first."""
    found: dict[str, Account] = {}
    begin = now - days * DAY
    for cluster, name, partition, gpus, cpus, memory, start, seconds, end in _held(history, begin, now):
        account = found.setdefault(name, Account(name))
        units = rates.units(partition, gpus, cpus, memory, seconds, cluster)
        if units is None:
            account.unpriced += 1
            continue
        # What lies before the period, or before its last week, is cut off evenly.
        length = max(1, end - start)
        account.spent += units * max(0, end - max(start, begin)) / length
        account.recent += units * max(0, end - max(start, now - BURN_DAYS * DAY)) / length
    for job in jobs:
        account = found.setdefault(job.account, Account(job.account))
        left = job.limit if job.pending else None if job.limit is None else max(0, job.limit - job.elapsed)
        units = rates.units(job.partition, job.gpus, job.cpus, job.memory_mib, left, job.cluster)
        if job.pending:
            account.waiting += (units or 0.0) * job.tasks
            account.unpriced += units is None
        else:
            account.running += units or 0.0
    return sorted(found.values(), key=lambda account: (-account.spent, account.name))


def _held(history: History, begin: float, now: float) -> list[tuple]:
    """(cluster, account, partition, gpus, cpus, memory, start, elapsed, end) of attempts since `begin`.

    An attempt that still runs is counted up to `now`.
    """
    return history.connection.execute(
        f"""
        SELECT cluster, account, partition, gpus, cpus, memory_mib, start, {HELD}, coalesce("end", :now)
        FROM attempts
        WHERE start IS NOT NULL AND ({RUNNING} OR "end" >= :begin)
        """,
        {"begin": begin, "now": int(now)},
    ).fetchall()


def text(
    found: list[Account], rates: Rates, days: float, grants: dict[str, float], now: float | None = None
) -> str:
    """The table; a grant that began with the period adds what is left of it and how long that lasts."""
    now = time.time() if now is None else now
    header = ["ACCOUNT", f"SPENT {days:g} DAYS", "RUNNING", "WAITING", "A DAY", "IN 30 DAYS", "LEFT", "LASTS"]
    rows = []
    for account in found:
        burn = account.burn(days)
        left = None if account.name not in grants else grants[account.name] - account.spent
        bound = account.running + account.waiting
        if left is None:
            lasts = "-"
        elif left <= bound:
            lasts = "committed jobs exceed it" if left > 0 else "spent"
        else:
            lasts = f"{left / burn:,.0f} days" if burn else "no use"
        figures = (account.spent, account.running, account.waiting, burn, 30 * burn)
        rows.append([account.name or "none", *map(quantity, figures), quantity(left), lasts])
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    grid = table(dict(zip(header, columns, strict=True)))
    lines = [grid, f"in {rates.unit}; rates from {rates.folder}"]
    unpriced = sum(account.unpriced for account in found)
    if unpriced:
        lines.append(
            f"{unpriced} job(s) in partitions without a rate or without a time limit are not counted"
        )
    return "\n".join([*lines, *rates.notes()])


def runaway_line(ids: Sequence[str]) -> str:
    """A sentence on attempts that accounting never closed."""
    named = ", ".join(ids[:10]) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
    return (
        f"{len(ids)} runaway job(s) are not counted: {named}. They run in accounting and are unknown to the "
        "controller; an admin closes them with sacctmgr show runawayjobs."
    )
