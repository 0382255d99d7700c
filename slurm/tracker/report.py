"""`elm-queue report`: one HTML file with everything in it; it follows light and dark and fits a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from data_prep import charts, pages
from slurm.tracker.budget import runaway_line
from slurm.tracker.history import DAY
from slurm.tracker.nodes import Node
from slurm.tracker.rates import Rates
from slurm.tracker.show import escaped, quantity, span
from slurm.tracker.summary import Summary, Totals

TEMPLATE = Path(__file__).parent / "templates" / "report.html"
# Ends of the axis of waits in seconds, in words, and half of it.
WAIT_SPANS = (
    *((60, "1 min", "30 s"), (300, "5 min", "2.5 min"), (900, "15 min", "7.5 min"), (3600, "1 h", "30 min")),
    *((3 * 3600, "3 h", "1.5 h"), (6 * 3600, "6 h", "3 h"), (12 * 3600, "12 h", "6 h")),
    *((DAY, "1 day", "12 h"), (3 * DAY, "3 days", "1.5 days"), (7 * DAY, "7 days", "3.5 days")),
    (30 * DAY, "30 days", "15 days"),
)
# Not counted as failures: a person's own decision, or the scheduler's.
GOOD = frozenset({"COMPLETED", "CANCELLED", "PREEMPTED", "REQUEUED"})


@dataclass
class Section:
    """One box of the page: a chart and the table under it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    chart: Markup | None = None
    keys: tuple[str, ...] = ()
    note: str = ""


def page(summary: Summary, rates: Rates, nodes: Sequence[Node], failure: str | None = None) -> str:
    """The whole page.

    Args:
        summary: the figures.
        rates: for the name of the budget's unit.
        nodes: the nodes as they are now, for the utilisation; empty when they are unknown.
        failure: why the history could not be brought up to date, if so.
    """
    begin, end = (datetime.fromtimestamp(t, UTC) for t in (summary.begin, summary.end))
    labels = [datetime.fromtimestamp(day, UTC).strftime("%d.%m.") for day in summary.days]
    return pages.render(
        TEMPLATE,
        clean=escaped,
        title=f"Queue report {begin:%d %b %Y} – {end:%d %b %Y}",
        synced="" if summary.synced is None else span(summary.end - summary.synced),
        failure=failure,
        notes=_notes(summary, rates),
        figures=_figures(summary, rates, nodes),
        sections=[
            _use(summary, labels),
            _waits(summary, labels),
            _money(summary, rates, labels),
            _ends(summary),
            _people("User", summary.by_user, rates),
            _people("Account", summary.by_account, rates),
        ],
    )


def _notes(summary: Summary, rates: Rates) -> list[str]:
    return ([runaway_line(summary.runaways)] if summary.runaways else []) + rates.notes()


def _figures(summary: Summary, rates: Rates, nodes: Sequence[Node]) -> list[tuple[str, str]]:
    """The row of large figures: value and meaning."""
    total, hours = summary.total, (summary.end - summary.begin) / 3600
    failed = sum(count for state, count in summary.states.items() if state not in GOOD)
    ended = sum(summary.states.values())
    return [
        (f"{total.jobs:,}", "job starts"),
        (_amount(total.gpu_hours), "GPU-hours"),
        (_amount(total.core_hours), "core-hours"),
        (_amount(total.units), rates.unit),
        (f"{failed / ended:.0%}" if ended else "–", "ended badly"),
        (_utilisation(total.gpu_hours, sum(n.gpus for n in nodes) * hours), "of the GPUs used"),
        (_utilisation(total.core_hours, sum(n.cpus for n in nodes) * hours), "of the cores used"),
        (_energy(summary.slurm_kwh), "kWh measured by Slurm"),
        (_energy(summary.run_kwh), "kWh of our runs, measured or modelled"),
    ]


def _use(summary: Summary, labels: list[str]) -> Section:
    gpu = summary.total.gpu_hours > 0
    what = "GPU-hours" if gpu else "core-hours"
    values = [day.gpu_hours if gpu else day.core_hours for day in summary.by_day]
    rows = [
        [name or "none", f"{t.jobs:,}", _amount(t.gpu_hours), _amount(t.core_hours)]
        for name, t in summary.by_partition.items()
    ]
    title = f"{what} a day"
    return Section(
        title, ["Partition", "Jobs", "GPU-h", "Core-h"], rows, charts.bars(title, labels, values, what)
    )


def _waits(summary: Summary, labels: list[str]) -> Section:
    series = [
        ("p50", [wait.p50 if wait else None for wait in summary.waits_by_day]),
        ("p90", [wait.p90 if wait else None for wait in summary.waits_by_day]),
    ]
    rows = [
        [name or "none", f"{wait.samples:,}", span(wait.p50), span(wait.p90)]
        for name, wait in summary.waits_by_partition.items()
    ]
    return Section(
        "Waits of the jobs that started",
        ["Partition", "Starts", "p50", "p90"],
        rows,
        charts.lines("Waits per day, p50 and p90", labels, series, WAIT_SPANS),
        keys=("half waited less", "nine of ten waited less"),
    )


def _money(summary: Summary, rates: Rates, labels: list[str]) -> Section:
    days = (summary.end - summary.begin) / DAY
    title = f"{rates.unit} a day"
    rows = [
        [name or "none", _amount(total.units), _amount(total.units / days)]
        for name, total in summary.by_account.items()
    ]
    note = ""
    if summary.unpriced:
        note = f"{summary.unpriced:,} job starts in partitions without a rate are not counted."
    chart = charts.bars(title, labels, [day.units for day in summary.by_day], rates.unit)
    return Section(f"Budget: {title}", ["Account", rates.unit, "a day"], rows, chart, note=note)


def _ends(summary: Summary) -> Section:
    total = sum(summary.states.values())
    rows = [[state.lower(), f"{n:,}", f"{n / total:.1%}"] for state, n in summary.states.items()]
    names = [state.lower() for state in summary.states]
    chart = charts.ranked("How jobs ended", names, list(summary.states.values()), "jobs") if rows else None
    return Section("How jobs ended", ["State", "Jobs", "Share"], rows, chart)


def _people(kind: str, totals: dict[str, Totals], rates: Rates) -> Section:
    rows = [
        [name or "none", f"{t.jobs:,}", *map(_amount, (t.gpu_hours, t.core_hours, t.units))]
        for name, t in totals.items()
    ]
    return Section(f"{kind}s", [kind, "Jobs", "GPU-h", "Core-h", rates.unit], rows)


def _utilisation(used: float, there: float) -> str:
    return "unknown" if there <= 0 else f"{used / there:.0%}"


def _energy(kwh: float | None) -> str:
    return "unknown" if kwh is None else _amount(kwh)


def _amount(value: float) -> str:
    """Large figures without a fraction, millions as such, so that a row of them fits a phone."""
    if value >= 1e6:
        return f"{value / 1e6:,.2f} M"
    return quantity(value, 0 if value >= 1000 else 1)
