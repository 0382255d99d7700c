"""The figures of a report: what the queue did between two moments, counted by SQLite from the history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from slurm.tracker.history import DAY, HELD, RUNNING, History
from slurm.tracker.rates import Rates
from slurm.tracker.sacct import Attempt

JOULES_PER_KWH = 3.6e6
# A page is read by people: more rows than these are added up as "others".
MOST_USERS = 15


@dataclass
class Totals:
    """Sums over attempts, each cut to the period."""

    jobs: int = 0
    gpu_hours: float = 0.0
    core_hours: float = 0.0
    units: float = 0.0

    def add(self, jobs: int, gpu_seconds: float, core_seconds: float, units: float) -> None:
        """Add so many attempts, and what they held in seconds."""
        self.jobs += jobs
        self.gpu_hours += gpu_seconds / 3600
        self.core_hours += core_seconds / 3600
        self.units += units


@dataclass
class Wait:
    """Waits in seconds of the jobs that started."""

    samples: int
    p50: float
    p90: float


@dataclass
class Summary:
    """Everything a report shows.

    Attributes:
        begin, end: the period, UTC epoch seconds.
        days: start of each day bar, UTC epoch seconds; the first and the last may be part of a day.
        total: sums over the period.
        by_day: sums per bar.
        by_user, by_account, by_partition: sums per name, the largest GPU or core use first.
        states: how attempts ended in the period, by state.
        waits_by_day: per bar; None where nothing started.
        waits_by_partition: per partition.
        slurm_kwh: energy that Slurm measured, None where it measured none.
        run_kwh: energy that our own runs reported, None without any.
        unpriced: attempts in partitions without a rate.
        synced: how new the history is.
        runaways: attempts that accounting never closed; they are counted nowhere.
    """

    begin: float
    end: float
    days: list[float]
    total: Totals
    by_day: list[Totals]
    by_user: dict[str, Totals]
    by_account: dict[str, Totals]
    by_partition: dict[str, Totals]
    states: dict[str, int]
    waits_by_day: list[Wait | None]
    waits_by_partition: dict[str, Wait] = field(default_factory=dict)
    slurm_kwh: float | None = None
    run_kwh: float | None = None
    unpriced: int = 0
    synced: float | None = None
    runaways: list[str] = field(default_factory=list)


def summarize(
    history: History, rates: Rates, begin: float, end: float, runaways: Iterable[Attempt] = ()
) -> Summary:
    """Count the period [begin, end); the attempts that `history.runaways` named are left out."""
    days = day_starts(begin, end)
    summary = Summary(
        begin=begin,
        end=end,
        days=days,
        total=Totals(),
        by_day=[Totals() for _ in days],
        by_user={},
        by_account={},
        by_partition={},
        states=_ended_states(history, begin, end),
        waits_by_day=[],
        synced=history.synced,
        runaways=[one.shown_id for one in runaways],
    )
    _add_use(summary, history, rates)
    _add_energy(summary, history)
    for name in ("by_user", "by_account", "by_partition"):
        setattr(summary, name, _largest_first(getattr(summary, name)))
    summary.by_user = _with_others(summary.by_user)
    return summary


def day_starts(begin: float, end: float) -> list[float]:
    """The starts of the UTC days that the period touches, the first one cut to the period's begin."""
    first = begin - begin % DAY
    return [max(begin, first + number * DAY) for number in range(int((end - first - 1) // DAY) + 1)]


def _ended_states(history: History, begin: float, end: float) -> dict[str, int]:
    rows = history.connection.execute(
        'SELECT state, count(*) FROM attempts WHERE "end" >= ? AND "end" < ? GROUP BY state ORDER BY 2 DESC',
        (begin, end),
    )
    return dict(rows)


# As `History.kinds` gives them.
Kinds = dict[int, tuple[str, str, str, str, int, int, int]]


def _add_use(summary: Summary, history: History, rates: Rates) -> None:
    """Add up what each attempt held inside each day, and gather the waits of those that started.

    The part of an attempt's `elapsed` inside a span is its share of start to end there, so a suspension is
    spread evenly. Attempts that still run are counted up to the period's end.
    """
    kinds = history.kinds()
    edges = [*summary.days, summary.end]
    # seconds[day][kind], jobs[kind]
    size = max(kinds, default=0) + 1
    seconds, jobs = np.zeros((len(summary.days), size)), np.zeros(size, dtype=np.int64)
    waits = []
    for rows in _overlapping(history, summary.begin, summary.end):
        start, stop, elapsed, wait, number = np.array(rows, dtype=np.float64).T
        kind = number.astype(np.int64)
        pace = elapsed / np.maximum(1, stop - start)
        for day in range(len(summary.days)):
            inside = np.minimum(stop, edges[day + 1]) - np.maximum(start, edges[day])
            seconds[day] += np.bincount(kind, np.maximum(0, inside) * pace, size)
        jobs += np.bincount(kind, minlength=size)
        begun = (start >= summary.begin) & (wait >= 0)
        waits.append(np.stack([kind[begun], start[begun], wait[begun]]))
    used = {number: kinds[number] for number in np.flatnonzero(jobs).tolist()}
    _add_totals(summary, rates, used, seconds, jobs)
    _add_waits(summary, kinds, np.concatenate(waits, axis=1) if waits else np.zeros((3, 0)))


def _overlapping(history: History, begin: float, end: float) -> Iterator[list[tuple]]:
    """Pieces of (start, stop, elapsed, wait or -1, number of its kind) of attempts in the period.

    Reading the table from end to end beats an index that jumps to each of a million rows.
    """
    cursor = history.connection.execute(
        f"""
        SELECT start, coalesce("end", :now), {HELD}, coalesce(max(0, start - eligible), -1), kind
        FROM attempts NOT INDEXED
        WHERE start < :to AND ("end" >= :from OR {RUNNING})
        """,
        {"from": begin, "to": end, "now": int(end)},
    )
    while rows := cursor.fetchmany(50_000):
        yield rows


def _add_totals(summary: Summary, rates: Rates, kinds: Kinds, seconds: np.ndarray, jobs: np.ndarray) -> None:
    for number, (user, account, partition, cluster, gpus, cpus, memory) in kinds.items():
        price = rates.units(partition, gpus, cpus, memory, 1, cluster)
        count = int(jobs[number])
        summary.unpriced += count if price is None else 0
        held = float(seconds[:, number].sum())
        for totals in (
            summary.total,
            summary.by_user.setdefault(user, Totals()),
            summary.by_account.setdefault(account, Totals()),
            summary.by_partition.setdefault(partition, Totals()),
        ):
            totals.add(count, held * gpus, held * cpus, held * (price or 0.0))
        for totals, part in zip(summary.by_day, map(float, seconds[:, number]), strict=True):
            totals.add(0, part * gpus, part * cpus, part * (price or 0.0))


def _add_waits(summary: Summary, kinds: Kinds, waits: np.ndarray) -> None:
    """The waits per day and per partition.

    Args:
        summary: takes them in.
        kinds: by number.
        waits: (3, n): kind, start and wait of each attempt that started in the period.
    """
    day = np.searchsorted(np.array(summary.days), waits[1], side="right") - 1
    summary.waits_by_day = [_wait_of(waits[2, day == number]) for number in range(len(summary.days))]
    names = sorted({kind[2] for kind in kinds.values()})
    number_of = np.zeros(max(kinds, default=0) + 1, dtype=np.int64)
    for number, kind in kinds.items():
        number_of[number] = names.index(kind[2])
    partition = number_of[waits[0].astype(np.int64)]
    for number, name in enumerate(names):
        found = _wait_of(waits[2, partition == number])
        if found:
            summary.waits_by_partition[name] = found


def _wait_of(waits: np.ndarray) -> Wait | None:
    if not len(waits):
        return None
    # The same definition as in eta.py: a value that was really waited.
    p50, p90 = np.percentile(waits, [50, 90], method="inverted_cdf")
    return Wait(len(waits), float(p50), float(p90))


def _add_energy(summary: Summary, history: History) -> None:
    """Energy of the attempts that ended in the period, and what our runs' own counters grew by."""
    bounds = (summary.begin, summary.end)
    joules = history.connection.execute(
        'SELECT sum(energy_joules) FROM attempts WHERE "end" >= ? AND "end" < ?', bounds
    ).fetchone()[0]
    summary.slurm_kwh = None if joules is None else joules / JOULES_PER_KWH
    grown = history.connection.execute(
        """
        SELECT sum(last - before) FROM (
            SELECT max(CASE WHEN taken < :to THEN kwh END) AS last,
                   coalesce(max(CASE WHEN taken < :from THEN kwh END), 0) AS before
            FROM energy GROUP BY folder
        ) WHERE last IS NOT NULL
        """,
        {"from": summary.begin, "to": summary.end},
    ).fetchone()[0]
    summary.run_kwh = grown


def _largest_first(totals: dict[str, Totals]) -> dict[str, Totals]:
    order = sorted(totals.items(), key=lambda item: (-item[1].gpu_hours, -item[1].core_hours, item[0]))
    return dict(order)


def _with_others(totals: dict[str, Totals]) -> dict[str, Totals]:
    """The first `MOST_USERS`, and one entry for all the others together."""
    names = list(totals)
    if len(names) <= MOST_USERS:
        return totals
    others = Totals()
    for name in names[MOST_USERS:]:
        one = totals[name]
        others.add(one.jobs, one.gpu_hours * 3600, one.core_hours * 3600, one.units)
    kept = {name: totals[name] for name in names[:MOST_USERS]}
    return kept | {f"{len(names) - MOST_USERS} others": others}
