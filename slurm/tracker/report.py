"""`elm-queue report`: one HTML file with everything in it; it follows light and dark and fits a phone."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from slurm.tracker import plots
from slurm.tracker.history import DAY
from slurm.tracker.nodes import Node
from slurm.tracker.rates import Rates
from slurm.tracker.show import escaped, quantity, span
from slurm.tracker.summary import Summary, Totals

STYLE = """
:root { color-scheme: light dark; --page: #fbfaf8; --ink: #1d2126; --soft: #5d6570; --line: #dcd9d3;
  --card: #ffffff; --one: #12685f; --two: #b3541e; --warn: #8a1c1c; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --ink: #e6e4df; --soft: #9aa3ad;
  --line: #30363c; --card: #1c2126; --one: #4fb9a9; --two: #e39a5f; --warn: #f0908a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 72rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.05rem; margin: 0 0 .6rem; }
p { margin: .3rem 0; color: var(--soft); } .warn { color: var(--warn); font-weight: 600; }
.figures { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; } .figures div { flex: 1 1 10rem; }
.figures div, section { background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: .8rem 1rem; }
.figures b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); font-size: .85rem; }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: .8rem;
  align-items: start; }
section { min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; max-width: 14rem; overflow: hidden;
  text-overflow: ellipsis; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--line); } .bar, circle.s0 { fill: var(--one); } circle.s1 { fill: var(--two); }
polyline { fill: none; stroke-width: 2; }
polyline.s0 { stroke: var(--one); } polyline.s1 { stroke: var(--two); }
.key { margin-right: 1em; }
.key::before { content: ""; display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin-right: .35em; background: var(--one); } .key.second::before { background: var(--two); }
@media (max-width: 40rem) { body { padding: .8rem; } svg text { font-size: 20px; }
  table { font-size: .85rem; } section { padding: .7rem .8rem; }
  th:first-child, td:first-child { max-width: 6rem; } th, td { padding-right: .5rem; } }
"""

# Ends of the axis of waits in seconds, in words, and half of it.
WAIT_SPANS = (
    *((60, "1 min", "30 s"), (300, "5 min", "2.5 min"), (900, "15 min", "7.5 min"), (3600, "1 h", "30 min")),
    *((3 * 3600, "3 h", "1.5 h"), (6 * 3600, "6 h", "3 h"), (12 * 3600, "12 h", "6 h")),
    *((DAY, "1 day", "12 h"), (3 * DAY, "3 days", "1.5 days"), (7 * DAY, "7 days", "3.5 days")),
    (30 * DAY, "30 days", "15 days"),
)


def page(summary: Summary, rates: Rates, nodes: Sequence[Node], failure: str | None = None) -> str:
    """The whole page.

    Args:
        summary: The figures.
        rates: For the name of the budget's unit.
        nodes: The nodes as they are now, for the utilisation; empty when they are unknown.
        failure: Why the history could not be brought up to date, if so.
    """
    begin, end = (datetime.fromtimestamp(t, UTC) for t in (summary.begin, summary.end))
    title = f"Queue report {begin:%d %b %Y} – {end:%d %b %Y}"
    synced = "" if summary.synced is None else span(summary.end - summary.synced)
    read = f"Accounting was read {synced} before the end of the period." if synced else ""
    fresh = f"<p>Times are UTC. {read}</p>"
    if failure:
        fresh = f'<p class="warn">Stale: accounting was last read {synced} ago ({text(failure)}).</p>'
    labels = [datetime.fromtimestamp(day, UTC).strftime("%d.%m.") for day in summary.days]
    sections = [
        use(summary, labels),
        waits(summary, labels),
        money(summary, rates, labels),
        ends(summary),
        people("Users", summary.by_user, rates),
        people("Accounts", summary.by_account, rates),
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
{fresh}
{figures(summary, rates, nodes)}
<div class="grid2">
{chr(10).join(sections)}
</div>
</body>
</html>
"""


def text(value: str) -> str:
    return escape(escaped(value))


def figures(summary: Summary, rates: Rates, nodes: Sequence[Node]) -> str:
    """The row of large figures."""
    total, hours = summary.total, (summary.end - summary.begin) / 3600
    failed = sum(count for state, count in summary.states.items() if state not in GOOD)
    ended = sum(summary.states.values())
    cards = [
        (f"{total.jobs:,}", "job starts"),
        (amount(total.gpu_hours), "GPU-hours"),
        (amount(total.core_hours), "core-hours"),
        (amount(total.units), text(rates.unit)),
        (f"{failed / ended:.0%}" if ended else "–", "ended badly"),
        (utilisation(total.gpu_hours, sum(n.gpus for n in nodes) * hours), "of the GPUs used"),
        (utilisation(total.core_hours, sum(n.cpus for n in nodes) * hours), "of the cores used"),
        (energy(summary.slurm_kwh), "kWh measured by Slurm"),
        (energy(summary.run_kwh), "kWh reported by our runs"),
    ]
    return (
        '<div class="figures">'
        + "".join(f"<div><b>{b}</b><span>{s}</span></div>" for b, s in cards)
        + "</div>"
    )


# Not counted as failures: a person's own decision, or the scheduler's.
GOOD = frozenset({"COMPLETED", "CANCELLED", "PREEMPTED", "REQUEUED"})


def utilisation(used: float, there: float) -> str:
    return "unknown" if there <= 0 else f"{used / there:.0%}"


def energy(kwh: float | None) -> str:
    return "unknown" if kwh is None else amount(kwh)


def amount(value: float) -> str:
    """Large figures without a fraction, millions as such, so that a row of them fits a phone."""
    if value >= 1e6:
        return f"{value / 1e6:,.2f} M"
    return quantity(value, 0 if value >= 1000 else 1)


def use(summary: Summary, labels: list[str]) -> str:
    gpu = summary.total.gpu_hours > 0
    values = [day.gpu_hours if gpu else day.core_hours for day in summary.by_day]
    what = "GPU-hours" if gpu else "core-hours"
    rows = [[text(n) or "none", f"{t.jobs:,}", amount(t.gpu_hours), amount(t.core_hours)]
            for n, t in summary.by_partition.items()]  # fmt: skip
    chart = plots.bars(f"{what} a day", labels, values, what)
    return section(f"{what} a day", chart + table(["Partition", "Jobs", "GPU-h", "Core-h"], rows))


def waits(summary: Summary, labels: list[str]) -> str:
    series = [
        ("p50", [wait.p50 if wait else None for wait in summary.waits_by_day]),
        ("p90", [wait.p90 if wait else None for wait in summary.waits_by_day]),
    ]
    key = (
        '<p><span class="key">half waited less</span>'
        '<span class="key second">nine of ten waited less</span></p>'
    )
    rows = [
        [text(name) or "none", f"{wait.samples:,}", span(wait.p50), span(wait.p90)]
        for name, wait in summary.waits_by_partition.items()
    ]
    chart = plots.lines("Waits per day, p50 and p90", labels, series, WAIT_SPANS)
    return section(
        "Waits of the jobs that started", key + chart + table(["Partition", "Starts", "p50", "p90"], rows)
    )


def money(summary: Summary, rates: Rates, labels: list[str]) -> str:
    chart = plots.bars(f"{rates.unit} a day", labels, [day.units for day in summary.by_day], rates.unit)
    note = ""
    if summary.unpriced:
        note = f"<p>{summary.unpriced:,} job starts in partitions without a rate are not counted.</p>"
    days = (summary.end - summary.begin) / DAY
    rows = [
        [text(name) or "none", amount(total.units), amount(total.units / days)]
        for name, total in summary.by_account.items()
    ]
    spent = table(["Account", text(rates.unit), "a day"], rows)
    return section(f"Budget: {text(rates.unit)} a day", chart + spent + note)


def ends(summary: Summary) -> str:
    total = sum(summary.states.values())
    rows = [[text(state.lower()), f"{n:,}", f"{n / total:.1%}"] for state, n in summary.states.items()]
    names = [state.lower() for state in summary.states]
    chart = plots.lying_bars("How jobs ended", names, list(summary.states.values()), "jobs")
    return section("How jobs ended", (chart if rows else "") + table(["State", "Jobs", "Share"], rows))


def people(title: str, totals: dict[str, Totals], rates: Rates) -> str:
    rows = [
        [
            text(name) or "none",
            f"{t.jobs:,}",
            amount(t.gpu_hours),
            amount(t.core_hours),
            amount(t.units),
        ]
        for name, t in totals.items()
    ]
    return section(title, table([title[:-1], "Jobs", "GPU-h", "Core-h", text(rates.unit)], rows))


def section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def table(header: list[str], rows: list[list[str]]) -> str:
    """An HTML table of cells that are escaped already."""
    if not rows:
        return "<p>Nothing in this period.</p>"
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def write(path: Path, content: str) -> None:
    """Writes the page under a temporary name, readable by its owner alone, and renames it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
