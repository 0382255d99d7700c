"""A plan as people read it: a table, a sentence on the best row, JSON, and a plot of time against cost."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from data_prep import files
from elm_megatron.planner.performance import StepTime
from elm_megatron.planner.plan import Rejected, Row, frontier

GIB = 2**30
NAMES = {
    "products": "matrix products",
    "memory": "passes over memory",
    "head": "the output layer",
    "tensor_parallel": "tensor-parallel sends",
    "data_parallel": "data-parallel sends",
}


def short(value: float) -> str:
    """A figure with one decimal, or two digits where it is small."""
    return f"{value:,.1f}" if value >= 1 or value == 0 else f"{value:.2g}"


def table(rows: Sequence[Row], unit: str) -> Table:
    """The rows as a table, in the order given."""
    shown = Table(box=SIMPLE, pad_edge=False)
    for head in ("layout", "GiB", "s/step", "MFU", "hours", "jobs", unit, "kWh", "kg CO2"):
        shown.add_column(head, justify="left" if head == "layout" else "right", no_wrap=True)
    for row in rows:
        shown.add_row(
            row.name,
            f"{sum(row.memory.values()) / GIB:.1f}",
            f"{row.step.total:.3f}",
            f"{row.mfu:.0%}",
            short(row.hours),
            "-" if row.jobs is None else str(row.jobs),
            "-" if row.budget is None else f"{row.budget:,.0f}",
            short(row.footprint.kwh),
            short(row.footprint.co2_kg),
        )
    return shown


def explained(row: Row) -> str:
    """Why a row takes the time it takes, in two sentences."""
    parts = sorted(asdict(row.step).items(), key=lambda item: -item[1])
    first, second = ((NAMES.get(name, name), value / row.step.total) for name, value in parts[:2])
    exposed = row.step.tensor_parallel + row.step.data_parallel + row.step.pipeline + row.step.bubble
    used = sum(row.memory.values()) / GIB
    return (
        f"{row.name}: {first[0]} take {first[1]:.0%} of a step and {second[0]} {second[1]:.0%}; "
        f"communication and bubble that nothing hides take {exposed / row.step.total:.0%}. The fullest rank "
        f"has {used:.1f} GiB, most of it {max(row.memory, key=row.memory.__getitem__)}."
    )


def refused(rejected: Sequence[Rejected], capacity_gb: float) -> str:
    """How many layouts do not fit, and what is too large in the one that is nearest to fitting."""
    if not rejected:
        return "every layout that is possible fits"
    nearest = min(rejected, key=lambda one: sum(one.memory.values()))
    needed = sum(nearest.memory.values()) / GIB
    return (
        f"{len(rejected)} layouts do not fit {capacity_gb:.1f} usable GiB; the nearest, {nearest.name}, "
        f"needs {needed:.1f} GiB, {nearest.memory[nearest.largest] / GIB:.1f} of it {nearest.largest}"
    )


def as_data(row: Row) -> dict[str, Any]:
    """A row as JSON holds it."""
    parallel, train = row.config.parallel, row.config.train
    return {
        "nodes": row.config.cluster.nodes,
        "gpus": row.config.world_size,
        "tp": parallel.tp,
        "pp": parallel.pp,
        "vpp": parallel.vpp,
        "cp": parallel.cp,
        "dp": row.config.dp,
        "micro_batch_size": train.micro_batch_size,
        "recompute": train.recompute,
        "precision": train.precision,
        "memory_bytes": row.memory,
        "step_seconds": {part.name: getattr(row.step, part.name) for part in fields(StepTime)},
        "steps": row.steps,
        "tokens_per_second": row.tokens_per_second,
        "mfu": row.mfu,
        "hours": row.hours,
        "jobs": row.jobs,
        "budget": row.budget,
        "kwh": row.footprint.kwh,
        "co2_kg": row.footprint.co2_kg,
        "footprint_basis": row.footprint.basis,
    }


def write(
    folder: Path, rows: Sequence[Row], rejected: Sequence[Rejected], unit: str, title: str
) -> list[Path]:
    """Write plan.json, plan.md and plan.png into a folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "rows": [as_data(row) for row in rows],
        "rejected": [{"layout": one.name, "memory_bytes": one.memory} for one in rejected],
    }
    paths = [folder / "plan.json", folder / "plan.md", folder / "plan.png"]
    files.write(paths[0], json.dumps(data, indent=1) + "\n")
    files.write(paths[1], markdown(rows, unit, title))
    with files.replacing(paths[2]) as picture:
        plot(rows, unit, title, picture)
    return paths


def markdown(rows: Sequence[Row], unit: str, title: str) -> str:
    """All rows as a Markdown table."""
    text = io.StringIO()
    Console(width=200, file=text).print(table(rows, unit))
    return f"# {title}\n\n```\n{text.getvalue()}```\n"


def plot(rows: Sequence[Row], unit: str, title: str, target: Any) -> None:
    """Time against cost, a dot for each row, the efficient frontier as a line; PNG into an open file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 5), layout="constrained")
    has_price = all(row.budget is not None for row in rows)

    def cost(row: Row) -> float:
        return float(row.budget or 0) if has_price else row.footprint.kwh

    counts = sorted({row.config.cluster.nodes for row in rows})
    for number, count in enumerate(counts):
        some = [row for row in rows if row.config.cluster.nodes == count]
        label = f"{count} node{'s' if count > 1 else ''}"
        axis.scatter(
            [row.hours for row in some],
            [cost(row) for row in some],
            s=12,
            alpha=0.5,
            color=f"C{number}",
            label=label,
        )
    best = frontier(rows)
    axis.plot(
        [row.hours for row in best], [cost(row) for row in best], "k-", lw=1, label="efficient frontier"
    )
    for row in best:
        axis.annotate(
            row.name.split(" tp")[0],
            (row.hours, cost(row)),
            textcoords="offset points",
            xytext=(4, 6),
            fontsize=8,
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("wall hours")
    axis.set_ylabel(unit if has_price else "kWh")
    axis.set_title(title)
    axis.grid(True, which="both", alpha=0.2)
    axis.legend()
    figure.savefig(target, format="png", dpi=120)
    pyplot.close(figure)
