"""What `launch/plan.py` does with its settings: show a plan, compare a run, or keep a run's correction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from conf.errors import InputError
from conf.schema.plan import PlanConfig
from conf.schema.pretrain import PretrainConfig
from elm_megatron.planner import calibration, measured, show
from elm_megatron.planner.climb import predicted_loss
from elm_megatron.planner.devices import COMPARED
from elm_megatron.planner.inputs import device_of
from elm_megatron.planner.layout import GIB, USABLE, capacity
from elm_megatron.planner.length import dataset_tokens
from elm_megatron.planner.plan import Row, best_by_nodes, frontier, plan

NARROWEST = 112  # columns that the table needs


def plan_command(config: PlanConfig, rate: Callable[[PretrainConfig], float | None]) -> int:
    """Show what is asked for.

    Args:
        config: checked settings.
        rate: budget units for an hour of a job with these settings.

    Returns:
        The exit status, 0.

    Raises:
        InputError: nothing can be planned, or a run cannot be read.
    """
    if config.compare:
        every = config.compare == measured.ALL
        table = (
            compared_all(measured.accuracy()) if every else compared(measured.figures(config.compare, rate))
        )
        _console().print(table)
        return 0
    if config.calibrate:
        factor = measured.calibrate(config.calibrate)
        print(f"measured steps took {factor:.2f} times the predicted time; kept in {calibration.FILE}")
    name, unit = config.cluster.name, config.cluster.site.budget_unit
    tokens, basis = dataset_tokens(config)
    rows, rejected = plan(
        config.pretraining(), config.node_counts(), tokens, rate, calibration.factor_of(name)
    )
    kept = [row for row in rows if _within(row, config)]
    sheet = device_of(config)
    usable = (capacity(config) or sheet.memory_gb * GIB * USABLE) / GIB
    if not kept:
        raise InputError(f"{_why_none(rows, config, unit)} {show.refused(rejected, usable)}.")
    title = f"{config.model.name} on {name}: {config.model.parameters():,} parameters"
    print(f"{title}, {kept[0].steps:,} steps ({basis}), {sheet.name}")
    if run := calibration.calibrated_by(name):
        print(f"corrected by run {run}: {calibration.factor_of(name):.2f} times the model's time")
    _console().print(show.table(best_by_nodes(kept, config.each), unit))
    if loss := predicted_loss(config, config.train.consumed(kept[0].steps) * config.train.seq_length):
        print(f"validation loss: {loss}")
    best = frontier(kept)
    print(f"fastest: {show.explained(best[0])}")
    print(f"cheapest: {show.explained(best[-1])}")
    print(show.refused(rejected, usable))
    print(f"energy and CO2 are {kept[0].footprint.basis}")
    for note in _notes(config, sheet.name):
        print(f"note: {note}")
    for path in show.write(Path(config.run.dir), kept, rejected, unit, title):
        print(f"written: {path}")
    return 0


def compared(figures: list[measured.Figure]) -> Table:
    """Predicted and recorded figures side by side."""
    table = Table(box=SIMPLE, pad_edge=False)
    for head in ("", "predicted", "recorded", "unit", "error"):
        table.add_column(head, justify="left" if head in ("", "unit") else "right")
    for one in figures:
        recorded = "-" if one.recorded is None else f"{one.recorded:,.3g}"
        error = "-" if one.error is None else f"{one.error:+.0%}"
        table.add_row(one.name, f"{one.predicted:,.3g}", recorded, one.unit, error)
    return table


def compared_all(rows: Sequence[tuple[str, list[measured.Figure] | str]]) -> Table:
    """Predicted over recorded of every run, as errors; what cannot be compared says why."""
    names = ("step", "hours", "memory", "device-hours", "energy", "CO2")
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("run")
    for head in names:
        table.add_column(head, justify="right")
    table.add_column("")
    for run, found in rows:
        if isinstance(found, str):
            table.add_row(run, *[""] * len(names), found)
            continue
        errors = {one.name: one.error for one in found}
        table.add_row(run, *("-" if errors[name] is None else f"{errors[name]:+.0%}" for name in names), "")
    return table


def _notes(config: PlanConfig, device: str) -> list[str]:
    """What a reader of the plan should know of its figures."""
    found = []
    if config.cluster.device == "gpu" and not device.startswith(COMPARED):
        found.append(
            f"the time model was compared with published runs on A100 and H100 GPUs alone, not on {device}; "
            "calibrate=<run> corrects it by a run of your own"
        )
    if config.train.precision == "fp8":
        found.append("fp8 is counted as bf16, so that hours are too many rather than too few")
    return found


def _within(row: Row, config: PlanConfig) -> bool:
    if config.budget is not None and (row.budget is None or row.budget > config.budget):
        return False
    return config.hours is None or row.hours <= config.hours


def _why_none(rows: list[Row], config: PlanConfig, unit: str) -> str:
    """Why no row is left."""
    if not rows:
        return f"no layout of {config.model.name} fits a GPU of cluster={config.cluster.name}:"
    priced = [row.budget for row in rows if row.budget is not None]
    if config.budget is not None and not priced:
        return f"budget={config.budget:g}: cluster={config.cluster.name} names no rate."
    cheapest = f", the cheapest costs {min(priced):,.0f} {unit}" if priced else ""
    fastest = f"the fastest of {len(rows)} layouts takes {min(row.hours for row in rows):,.1f} hours"
    return f"nothing is within budget={config.budget} and hours={config.hours}: {fastest}{cheapest}."


def _console() -> Console:
    """A console that is wide enough for the table."""
    console = Console()
    return console if console.width >= NARROWEST else Console(width=NARROWEST)
