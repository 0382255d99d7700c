"""The page of a run: one HTML file with its curves, attempts, stragglers, energy, evaluations and samples.

    python launch/report.py source=pretrain-tiny-sample

It is made from the files in the run's folder alone, and from evaluations beside it. Torch-free.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from conf.errors import InputError
from data_prep import files
from data_prep.charts import curves
from data_prep.pages import render
from elm_megatron.planner import footprint
from elm_megatron.run import evaluations
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import run_config, split_step

TEMPLATE = Path(__file__).parent / "templates" / "run.html"
FILE = "report.html"
MOST_SAMPLES = 30  # texts shown: those of the last checkpoints
Row = tuple[str, ...]


def write(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a run; returns the file.

    Args:
        folder: the run's.
        out: another file than `<run>/report.html`.

    Raises:
        InputError: it holds no record of a run.
    """
    run = RunFolder(folder)
    record = run.read()
    if not record:
        raise InputError(f"source={folder}: holds no run.json, so that there is no run to report.")
    config = run_config(run) if run.config.is_file() else {}
    path = out or run.path / FILE
    page = render(
        TEMPLATE,
        title=(config.get("run") or {}).get("name", run.path.name),
        folder=str(run.path),
        warning=_warning(record),
        figures=_figures(record),
        charts=_charts(run),
        tables=[
            ("Attempts", ("attempt", "began", "hours", "saving, s", "kWh"), _attempts(record)),
            ("Stragglers", ("rank", "share of logged steps", "over the median"), _stragglers(run)),
            ("Energy", ("what", "value"), _energy(record, config)),
            ("Evaluations", ("measure", "run", "value"), _evaluations(run)),
            ("Settings", ("setting", "value"), _settings(config)),
        ],
        samples=_samples(run),
    )
    files.write(path, page)
    return path


def _warning(record: dict[str, Any]) -> str:
    state = record.get("state")
    return f"{state}: {record['reason']}" if record.get("reason") and state != "done" else ""


def _figures(record: dict[str, Any]) -> list[Row]:
    """(name, value) of the boxes at the top; what is not known has no box."""
    found = [
        ("state", record.get("state")),
        ("steps", _number(record.get("step"))),
        ("tokens", _number(record.get("tokens"))),
        ("training loss, nats", _number(record.get("loss"))),
        ("validation loss, nats", _number(record.get("valid_loss"))),
        ("tokens per second", _number(record.get("tokens_per_second"))),
        ("hours", _hours(record.get("seconds"))),
        ("kWh", _number(record.get("kwh"))),
        ("ranks", _number(record.get("world_size"))),
    ]
    return [(name, value) for name, value in found if value]


def _charts(run: RunFolder) -> list[tuple[str, Any, list[str]]]:
    """(title, picture, names of its lines) of every curve the run has rows for."""
    rows, valid = run.read_metrics(), run.read_metrics(run.valid)
    wanted = [
        ("Loss, nats per token", [("training", rows, "loss"), ("validation", valid, "loss")]),
        *(
            (f"Validation, {name.removeprefix('loss_')}", [("validation", valid, name)])
            for name in sorted({key for row in valid for key in row if key.startswith("loss_")})
        ),
        ("Preferences: margin", [("margin", valid, "margin")]),
        ("Preferences: share that is right", [("accuracy", valid, "accuracy")]),
        ("Learning rate", [("rate", rows, "lr")]),
        ("Norm of the gradient", [("norm", rows, "grad_norm")]),
        ("Tokens per second", [("tokens per second", rows, "tokens_per_second")]),
        ("Model FLOPs utilisation", [("MFU", rows, "mfu")]),
        ("Slowest rank over the median", [("slowest", rows, "slowest_over_median")]),
        ("Memory of the largest rank, GB", [("memory", rows, "memory_bytes")]),
    ]
    wanted += _evaluation_charts(run)
    found = []
    for title, series in wanted:
        scale = 1e-9 if title.endswith("GB") else 1.0
        lines = [
            (name, [(row["step"], row[key] * scale) for row in source if _is_number(row.get(key))])
            for name, source, key in series
        ]
        lines = [(name, points) for name, points in lines if points]
        if lines:
            found.append((title, curves(title, lines, "step"), [name for name, _ in lines]))
    return found


def _evaluation_charts(run: RunFolder) -> list[tuple[str, list[tuple[str, list[dict[str, Any]], str]]]]:
    """(title, its one line) of what was measured of checkpoints while the run went on."""
    rows = [{"step": row["step"], **evaluations.scalars(row)} for row in evaluations.results(run)]
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    return [
        (f"Checkpoints: {name.replace('/', ', ')}", [("checkpoints", rows, name)])
        for name in names
        if not name.startswith("tasks/") and "/source" not in name
    ]


def _attempts(record: dict[str, Any]) -> list[Row]:
    """Every start of the run, from what was written while it ran."""
    return [
        (
            str(number),
            _when(attempt.get("began")),
            _hours(attempt.get("seconds")) or "unknown",
            _number(attempt.get("save_seconds")) or "unknown",
            _number(attempt.get("kwh")) or "unknown",
        )
        for number, attempt in enumerate(record.get("attempt_costs") or [], 1)
    ]


def _stragglers(run: RunFolder) -> list[Row]:
    """The ranks that were the slowest of a logged step, most often first."""
    rows = [row for row in run.read_metrics() if _is_number(row.get("slowest_rank"))]
    counts = Counter(row["slowest_rank"] for row in rows)
    found = []
    for rank, times in counts.most_common(5):
        over = sorted(row["slowest_over_median"] for row in rows if row["slowest_rank"] == rank)
        found.append((str(rank), f"{times / len(rows):.0%}", f"{over[len(over) // 2]:.2f}×"))
    return found


def _energy(record: dict[str, Any], config: dict[str, Any]) -> list[Row]:
    found, kwh, tokens = footprint.of_record(record, config), record.get("kwh"), record.get("tokens")
    rows: list[Row] = []
    if kwh is not None:
        rows += [("kWh", _number(kwh)), ("measured by", str(record.get("energy_method") or "unknown"))]
    if found is not None:
        rows += [
            ("device-hours", _number(found.device_hours)),
            ("kWh with the rest of the nodes and the data centre", _number(found.kwh)),
            ("kg CO2", _number(found.co2_kg)),
            ("how it is known", found.basis),
        ]
        kwh = found.kwh
    if tokens and kwh is not None:
        rows.append(("kWh per million tokens", _number(kwh / tokens * 1e6)))
    return rows


def _evaluations(run: RunFolder) -> list[Row]:
    """The newest evaluation of a checkpoint, and what `launch/eval.py` measured of the run or an export."""
    found: list[Row] = []
    for row in evaluations.results(run)[-1:]:
        for name, value in evaluations.scalars(row).items():
            found.append(
                (name.removeprefix("tasks/").replace("/", ", "), f"step {row['step']}", _number(value))
            )
    for step, reason in evaluations.failures(run).items():
        found.append(("could not be evaluated", f"step {step}", reason))
    for path in sorted(run.path.resolve().parent.glob("*/evaluation.json")):
        measured = RunFolder(path.parent)
        try:
            sources = run_config(measured).get("source")
            results = json.loads(path.read_text(encoding="utf-8"))
        except (InputError, OSError, ValueError):
            continue
        given = [sources] if isinstance(sources, str) else sources or []
        mine = [name for name, source in zip(results, given, strict=False) if _is_of(run, str(source))]
        for name in mine:
            for group, figures in results[name].get("perplexity", {}).items():
                found.append((f"perplexity, {group}", path.parent.name, _number(figures["perplexity"])))
                found.append((f"bits per byte, {group}", path.parent.name, _number(figures["bits_per_byte"])))
            for task, figures in results[name].get("tasks", {}).items():
                value = figures.get("value", figures.get("accuracy"))
                metric = figures.get("metric") or "accuracy"
                found.append((f"{task}, {metric}", path.parent.name, _number(value) or "unknown"))
            for split, works in (("train", "training works"), ("valid", "held-out works")):
                if figures := results[name].get("memorization", {}).get(split):
                    rate = _number(figures["rate"]) or "unknown"
                    found.append((f"continued verbatim, share of {works}", path.parent.name, rate))
    return found


def _is_of(run: RunFolder, source: str) -> bool:
    """Whether an evaluation's source is this run, or an export of it."""
    name = split_step(source)[0]
    places = {run.path, run.path.resolve()}
    given = Path(name).expanduser()
    for folder in (given.absolute(), run.path.parent / name):
        if folder in places or folder.resolve() in places:
            return True
        export = RunFolder(folder.parent if folder.name == "model" else folder).read().get("export") or {}
        if export.get("source") and Path(export["source"]) in places:
            return True
    return False


def _settings(config: dict[str, Any]) -> list[Row]:
    groups = ("model", "data", "train", "tune", "sft", "dpo", "parallel", "cluster")
    return [
        (f"{group}.{key}", "null" if value is None else str(value))
        for group in groups
        for key, value in (config.get(group) or {}).items()
        if not isinstance(value, dict)
    ]


def _samples(run: RunFolder) -> list[dict[str, str]]:
    """Texts that the model wrote at checkpoints, the newest first."""
    rows = run.read_metrics(run.samples)[-MOST_SAMPLES:]
    found = []
    for row in reversed(rows):
        texts = {key: value for key, value in row.items() if isinstance(value, str)}
        found.append({"step": str(row.get("step", "")), "text": "\n".join(texts.values())})
    return [row for row in found if row["text"]]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> str:
    if not _is_number(value):
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _hours(seconds: Any) -> str:
    return f"{seconds / 3600:,.2f}" if _is_number(seconds) else ""


def _when(began: Any) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(began)) if _is_number(began) else "unknown"
