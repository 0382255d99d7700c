"""The model documentation form of the code of practice for general-purpose AI models (Transparency, 1.1)."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

from conf.schema.institution import Institution
from data_prep.bundle import tables
from data_prep.bundle.answers import Answers
from data_prep.markdown import Safe, render, table
from elm_megatron.bundle.trained import Trained
from elm_megatron.model import hf_names
from elm_megatron.sources.lineage import Stage

FILE = "model-documentation.md"
TEMPLATES = Path(__file__).parent / "templates"
# The ranges of the form, with its words.
SIZES = (
    (5e8, "1 to 500 million"),
    (5e9, "500 million to 5 billion"),
    (1.5e10, "5 to 15 billion"),
    (5e10, "15 to 50 billion"),
    (inf, "more than 50 billion"),
)
TIMES = (
    (1.0, "less than 1 month"),
    (3.0, "1 to 3 months"),
    (6.0, "3 to 6 months"),
    (inf, "more than 6 months"),
)
MONTH_HOURS = 365.25 * 24 / 12
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
LEARNT = ("steps", "epochs", "global_batch_size", "seq_length", "lr", "min_lr", "schedule", "weight_decay")


def write(trained: Trained, institution: Institution) -> str:
    """The form."""
    model, count = trained.source.model, hf_names.count(trained.source.model)
    hours = trained.hours
    return render(
        TEMPLATES / FILE,
        answers=Answers(institution),
        trained=trained,
        model=model,
        parameters=count,
        size=Safe(_range(SIZES, count)),
        weights=_weights(trained),
        trainings=_trainings(trained),
        months=None if hours is None else Safe(_range(TIMES, hours / MONTH_HOURS)),
        megawatt_hours=None if trained.kwh is None else trained.kwh / 1000,
        methods=trained.energy_methods,
        inference=model.flops_per_token(model.max_position_embeddings) / 3,  # forward: a third of training
        gigabytes=count * BYTES.get(trained.figures["dtype"], 4) / 1e9,
        versions=_versions(trained.stages),
        licence=trained.config.licence,
        sources=[source for facts in trained.datasets for source in facts.sources(institution)]
        + trained.tunings(institution),
        overview=tables.overview,
        cleaning=tables.cleaning,
    )


def _range(ranges: tuple[tuple[float, str], ...], value: float) -> str:
    return next(words for below, words in ranges if value < below)


def _weights(trained: Trained) -> Safe:
    return table(trained.weights.items(), ("file", "sha256"))


def _trainings(trained: Trained) -> Safe:
    """A row for each training, with what it learnt by and what it took."""
    rows = []
    for stage, flop, energy in zip(trained.trainings, trained.flops, trained.footprints, strict=True):
        record, settings = stage.record, stage.settings
        learnt = ", ".join(f"{key} {settings[key]}" for key in LEARNT if settings.get(key) is not None)
        hours = None if record.get("seconds") is None else record["seconds"] / 3600
        verb = stage.config.get("stage") or record.get("verb")
        rows.append((stage.name, verb, learnt, record.get("tokens"), hours, flop, energy and energy.kwh))
    return table(rows, ("run", "stage", "settings", "tokens", "hours", "FLOP", "kWh"))


def _versions(stages: list[Stage]) -> dict[str, Any]:
    return {} if not stages else (stages[-1].record.get("versions") or {})
