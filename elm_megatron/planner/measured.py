"""What a run recorded beside what the planner predicts, and the correction that follows. Torch-free."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conf import typed
from conf.errors import InputError
from conf.schema.pretrain import PretrainConfig
from elm_megatron.planner import calibration, footprint, memory
from elm_megatron.planner.inputs import device_of, layout_of, shape_of
from elm_megatron.planner.overhead import beside
from elm_megatron.planner.performance import mfu, step_time
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import RUNS, locate, run_config

ALL = "all"
WARM = 3  # logged steps at the start of a run that do not count


@dataclass(frozen=True)
class Figure:
    """One figure of a run: predicted, recorded, and its unit; recorded is None where the run has none."""

    name: str
    predicted: float
    recorded: float | None
    unit: str

    @property
    def error(self) -> float | None:
        """(predicted - recorded) / recorded."""
        return None if not self.recorded else self.predicted / self.recorded - 1


def read(source: str, key: str) -> tuple[PretrainConfig, RunFolder]:
    """A pretraining run's settings and folder.

    Raises:
        InputError: it is no pretraining run.
    """
    run = RunFolder(locate(source, key))
    values = run_config(run)
    if "train" not in values:
        raise InputError(f"{key}={source}: is not a pretraining run.")
    return typed.build(PretrainConfig, values), run


def compared_runs(source: str) -> list[RunFolder]:
    """The runs that `compare` names.

    Raises:
        InputError: no such run, or none at all.
    """
    if source != ALL:
        return [RunFolder(locate(source, "compare"))]
    found = [RunFolder(path.parent) for path in sorted(RUNS.glob("*/metrics.jsonl"))]
    if not found:
        raise InputError(f"compare={ALL}: {RUNS.absolute()} has no run with logged steps.")
    return found


def accuracy() -> list[tuple[str, list[Figure] | str]]:
    """Every run below runs/ with its figures, or the sentence that says why it has none."""
    rows: list[tuple[str, list[Figure] | str]] = []
    for run in compared_runs(ALL):
        try:
            rows.append((run.path.name, figures(str(run.path))))
        except InputError as error:
            rows.append((run.path.name, str(error)))
    return rows


def figures(source: str, rate: Callable[[PretrainConfig], float | None] | None = None) -> list[Figure]:
    """A run's figures, predicted and recorded.

    Args:
        source: a run's name or folder.
        rate: budget units for an hour of such a job; None leaves the budget out.

    Raises:
        InputError: it is no pretraining run, has too few logged steps, or ran on an unknown device.
    """
    config, run = read(source, "compare")
    seconds, rows = _step_seconds(run, "compare", source)
    sheet = device_of(config)
    factor = calibration.factor_of(config.cluster.name)
    predicted = step_time(shape_of(config.model), layout_of(config), sheet).total * factor
    record = run.read()
    steps = len(rows) and rows[-1]["step"]
    hours = predicted * steps / 3600
    tokens = config.train.global_batch_size * config.train.seq_length
    planned = footprint.planned(config.cluster, config.world_size, hours)
    spent_energy = footprint.of_record(record, run_config(run))
    held = max((row.get("memory_bytes") or 0 for row in rows), default=0) or None
    recorded_mfu = (
        statistics.median(row["mfu"] for row in rows) if all(row.get("mfu") for row in rows) else None
    )
    spent = record.get("seconds")
    # A GPU's figure is torch's own; a CPU's is that of the whole process.
    planned_bytes = sum(memory.rank_parts(config).values())
    planned_bytes += sum(beside(config).values()) if config.cluster.device == "cpu" else 0
    price, unit = rate(config) if rate else None, config.cluster.site.budget_unit
    paid = [] if price is None else [Figure("budget", price * hours, spent and price * spent / 3600, unit)]
    return [
        Figure("step", predicted, seconds, "s"),
        Figure("speed", tokens / predicted, tokens / seconds, "tokens/s"),
        Figure(
            "MFU",
            100 * mfu(shape_of(config.model), layout_of(config), sheet, predicted),
            None if recorded_mfu is None else 100 * recorded_mfu,
            "%",
        ),
        Figure("hours", hours, None if spent is None else spent / 3600, "h"),
        Figure("memory", planned_bytes / 2**30, held and held / 2**30, "GiB"),
        Figure("device-hours", planned.device_hours, spent_energy and spent_energy.device_hours, "h"),
        Figure("energy", planned.kwh, spent_energy and spent_energy.kwh, "kWh"),
        Figure("CO2", planned.co2_kg, spent_energy and spent_energy.co2_kg, "kg"),
        *paid,
    ]


def calibrate(source: str) -> float:
    """Keep measured over predicted seconds of a run's step for its cluster; returns that factor.

    Raises:
        InputError: as `figures`.
    """
    config, run = read(source, "calibrate")
    seconds, _ = _step_seconds(run, "calibrate", source)
    predicted = step_time(shape_of(config.model), layout_of(config), device_of(config)).total
    calibration.keep(config.cluster.name, seconds / predicted, run.path.name)
    return seconds / predicted


def _step_seconds(run: RunFolder, key: str, source: str) -> tuple[float, list[dict[str, Any]]]:
    """Median seconds of a run's steps, and the rows they are of."""
    rows = run.read_metrics()[WARM:]
    if len(rows) < WARM:
        raise InputError(
            f"{key}={source}: has {len(rows) + WARM} logged steps at most, at least {2 * WARM} are needed."
        )
    return statistics.median(row["step_seconds"] for row in rows), rows
