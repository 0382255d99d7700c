"""The report of a sweep: its points side by side, as a table and a plot (`python launch/sweep.py report`)."""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from conf import typed
from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import run_config
from slurm.jobs import price

FOLDER = ".sweeps"


@dataclass
class Point:
    """One row of the report.

    Attributes:
        overrides: what sets this point apart.
        ranks, nodes: of its world.
        global_batch_size: sequences per step.
        tokens_per_second: of the whole job, median over the second half of the logged steps.
        efficiency: tokens_per_second per rank, relative to the point with the fewest ranks.
        scaling: strong when the batch is that of the smallest point, weak when it grew with the ranks.
        loss, valid_loss: last ones, nats per token.
        hours: of training.
        cost, unit: in the site's budget units; None where no rate is known.
    """

    name: str
    overrides: str
    state: str
    step: int
    ranks: int
    nodes: int
    global_batch_size: int
    tokens_per_second: float | None
    efficiency: float | None
    scaling: str
    loss: float | None
    valid_loss: float | None
    hours: float
    cost: float | None
    unit: str


def newest(runs: Path) -> Path:
    """The sweep whose command was given last.

    Raises:
        InputError: there is none.
    """
    found = sorted((runs / FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(f"{runs / FOLDER} holds no sweep; make one with -m and several values of a key.")
    return found[-1]


def points(sweep: Path) -> list[Point]:
    """The rows of a sweep's report, in the order of its points.

    Raises:
        InputError: the file is no sweep, or a point's folder cannot be read.
    """
    rows = [_point(Path(folder), overrides) for folder, overrides in _listed(sweep)]
    measured = [row for row in rows if row.tokens_per_second and row.ranks]
    if measured:
        base = min(measured, key=lambda row: row.ranks)
        for row in measured:
            assert row.tokens_per_second and base.tokens_per_second
            row.efficiency = row.tokens_per_second / row.ranks / (base.tokens_per_second / base.ranks)
            grown = row.global_batch_size * base.ranks == base.global_batch_size * row.ranks
            if row.ranks != base.ranks:
                row.scaling = "weak" if grown else "strong" if _same_batch(row, base) else "mixed"
    return rows


def _listed(sweep: Path) -> list[tuple[str, str]]:
    """Folder and overrides of each run that a sweep's file names."""
    try:
        runs = [
            (item["dir"], item["overrides"]) for item in json.loads(sweep.read_text(encoding="utf-8"))["runs"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{sweep} is no sweep: files in {FOLDER} are.") from error
    if not runs:
        raise InputError(f"{sweep} names no runs.")
    return runs


def _same_batch(row: Point, base: Point) -> bool:
    return row.global_batch_size == base.global_batch_size


def _point(folder: Path, overrides: str) -> Point:
    run = RunFolder(folder)
    record: dict[str, Any] = run.read()
    config = run_config(run) if run.config.exists() else {}
    cluster, loop = config.get("cluster", {}), config.get("train") or config.get("tune") or {}
    rows = run.read_metrics()
    speeds = [row["tokens_per_second"] for row in rows[len(rows) // 2 :] if row.get("tokens_per_second")]
    hours = record.get("seconds", 0.0) / 3600
    return Point(
        name=folder.name,
        overrides=overrides,
        state=record.get("state", "missing"),
        step=record.get("step", rows[-1]["step"] if rows else 0),
        ranks=record.get("world_size", 0),
        nodes=cluster.get("nodes", 1),
        global_batch_size=loop.get("global_batch_size", 0),
        tokens_per_second=statistics.median(speeds) if speeds else None,
        efficiency=None,
        scaling="base",
        loss=rows[-1].get("loss") if rows else None,
        valid_loss=record.get("valid_loss"),
        hours=hours,
        cost=_cost(cluster, record.get("world_size", 0), hours),
        unit=cluster.get("site", {}).get("budget_unit", ""),
    )


def _cost(cluster: dict[str, Any], ranks: int, hours: float) -> float | None:
    """Budget units for what the job asked for."""
    rate = price.per_hour(typed.build(ClusterConfig, cluster, "cluster"), ranks) if ranks else None
    return None if rate is None else rate * hours or None


def write_report(sweep: Path) -> list[Path]:
    """Write <key>.csv, <key>.md and <key>.png beside the sweep; returns their paths."""
    rows = points(sweep)
    table, text, plot = (sweep.with_suffix(suffix) for suffix in (".csv", ".md", ".png"))
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [item.name for item in fields(Point)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    text.write_text(markdown(rows), encoding="utf-8")
    _plot(rows, plot)
    return [table, text, plot]


def markdown(rows: list[Point]) -> str:
    """The table for people."""
    head = (
        "point",
        "state",
        "step",
        "ranks",
        "tokens/s",
        "efficiency",
        "loss",
        "valid loss",
        "hours",
        "cost",
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        cells = (
            row.overrides or row.name,
            row.state,
            str(row.step),
            str(row.ranks),
            _number(row.tokens_per_second, ",.0f"),
            f"{_number(row.efficiency, '.0%')} {row.scaling}" if row.efficiency else "-",
            _number(row.loss, ".4f"),
            _number(row.valid_loss, ".4f"),
            _number(row.hours, ".2f"),
            f"{row.cost:,.1f} {row.unit}" if row.cost else "-",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _plot(rows: list[Point], path: Path) -> None:
    """Speed and scaling over ranks, loss over tokens, and what each point cost."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ((speed, scaling), (loss, cost)) = pyplot.subplots(2, 2, figsize=(11, 8), constrained_layout=True)
    measured = sorted((row for row in rows if row.tokens_per_second), key=lambda row: row.ranks)
    _plot_speed(speed, measured)
    _plot_scaling(scaling, measured)
    for row in rows:
        logged = RunFolder(path.parents[1] / row.name).read_metrics()
        if logged:
            values = [r["tokens"] for r in logged], [r["loss"] for r in logged]
            loss.plot(*values, label=row.overrides or row.name, alpha=0.8)
    loss.set(xlabel="tokens", ylabel="nats per token", title="training loss")
    if loss.lines:
        loss.legend(fontsize=8)
    known = any(row.cost for row in rows)
    bars = [(row.cost or 0.0) if known else row.hours * row.ranks for row in rows]
    cost.barh([row.overrides or row.name for row in rows], bars)
    cost.invert_yaxis()
    cost.set(xlabel=rows[0].unit if known else "rank hours (the site names no rate)", title="cost")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _plot_speed(axes: Any, measured: list[Point]) -> None:
    """Tokens per second of each point, and what the smallest one's ranks would give without any loss."""
    ranks = [row.ranks for row in measured]
    axes.plot(ranks, [row.tokens_per_second for row in measured], "o")
    if measured:
        each = (measured[0].tokens_per_second or 0) / ranks[0]
        axes.plot(ranks, [each * count for count in ranks], color="grey", linewidth=0.8, label="ideal")
        axes.legend(fontsize=8)
    axes.set(
        xlabel="ranks", ylabel="tokens per second", title="speed", ylim=(0, None), xticks=sorted(set(ranks))
    )


def _plot_scaling(axes: Any, measured: list[Point]) -> None:
    """Efficiency per rank: strong where the batch stayed, weak where it grew with the ranks."""
    for kind in ("strong", "weak", "mixed"):
        chosen = [row for row in measured if row.scaling in (kind, "base")]
        if any(row.scaling == kind for row in chosen):
            percent = [100 * (row.efficiency or 0) for row in chosen]
            axes.plot([row.ranks for row in chosen], percent, "o-", label=kind)
    if axes.lines:
        axes.legend(fontsize=8)
    axes.axhline(100, color="grey", linewidth=0.8)
    ranks = [row.ranks for row in measured]
    axes.set(
        xlabel="ranks",
        ylabel="per cent",
        title="scaling efficiency",
        ylim=(0, None),
        xticks=sorted(set(ranks)),
    )
