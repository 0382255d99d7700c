"""The head of the card: the keys by which the Hugging Face hub files a model, from the same records.

https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import yaml

from data_prep.markdown import one_line
from elm_megatron.bundle.trained import Trained
from elm_megatron.sources.lineage import Stage

UNKNOWN = "unknown"
LINE = "---"
LANGUAGES = ("en", "nl")  # that the hub has codes of; `other` is none
IN_TRAINING = "perplexity per token at the end of training"


def write(trained: Trained) -> str:
    """The head as YAML between two lines."""
    return between_lines(keys(trained))


def between_lines(values: dict[str, Any]) -> str:
    """A mapping as the head of a card."""
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)
    return f"{LINE}\n{text}{LINE}"


def keys(trained: Trained) -> dict[str, Any]:
    """The keys; what is unknown is left out, but for the licence."""
    stages = trained.stages
    chat = bool(stages) and stages[-1].tuning
    spoken = {language for facts in trained.datasets for language in facts.manifest.languages}
    values = {
        "language": sorted(spoken.intersection(LANGUAGES)),
        "license": trained.config.licence or UNKNOWN,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["llama", "erasmian-language-model", *(["lora", "chat"] if chat else [])],
        "base_model": _base(trained),
        "base_model_relation": "finetune" if _base(trained) else None,
        "datasets": list(dict.fromkeys(facts.name for facts in trained.datasets)),
        "co2_eq_emissions": _emissions(trained),
        "model-index": _index(trained),
    }
    return {key: value for key, value in values.items() if value not in (None, [], {})}


def _base(trained: Trained) -> str | None:
    """The model that this one was made of: one from elsewhere, or the run that was tuned."""
    if trained.base:
        return one_line(trained.stages[0].name if trained.base_is_lost else trained.base)
    before = [stage.name for stage in trained.stages if not stage.tuning]
    return one_line(before[-1]) if trained.stages and trained.stages[-1].tuning and before else None


def _emissions(trained: Trained) -> dict[str, Any] | None:
    """Grams of CO2 equivalent of all trainings, with how they are known."""
    if trained.grams is None:
        return None
    devices = dict.fromkeys(filter(None, map(_device, trained.trainings)))
    tuned = trained.stages[-1].tuning
    found = {"emissions": float(f"{trained.grams:.6g}"), "source": "; ".join(trained.energy_methods)}
    return {
        **found,
        "training_type": "pre-training and fine-tuning" if tuned else "pre-training",
        "hardware_used": ", ".join(devices) or UNKNOWN,
    }


def _device(stage: Stage) -> str | None:
    cluster = stage.config.get("cluster") or {}
    return cluster.get("gpu_type") or cluster.get("device")


def _index(trained: Trained) -> list[dict[str, Any]]:
    """The perplexity of the last run's validation, in the form of a model-index."""
    losses = [(stage, stage.record.get("valid_loss")) for stage in trained.trainings]
    known = [(stage, loss) for stage, loss in losses if isinstance(loss, float) and loss < 100]
    if not known:
        return []
    stage, loss = known[-1]
    held_out = "held-out answers of the tuning data"
    name = held_out if stage.tuning else ", ".join(facts.name for facts in trained.datasets) or UNKNOWN
    result = _result(name, "perplexity", math.exp(loss), IN_TRAINING)
    return [{"name": one_line(trained.name), "results": [result]}]


def _result(dataset: str, metric: str, value: float, name: str) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": one_line(dataset), "type": one_line(dataset)},
        "metrics": [{"type": metric, "value": float(f"{value:.6g}"), "name": name}],
    }


def with_results(text: str, measured: Iterable[tuple[str, float | None]]) -> str:
    """A card whose head has what an evaluation measured, instead of an earlier evaluation's.

    Args:
        text: the card.
        measured: (what, figure), as `perplexity, nl` or `elm_cloze_nl, accuracy`.
    """
    first, _, rest = text.partition(f"{LINE}\n")
    head, line, body = rest.partition(f"\n{LINE}\n")
    values = yaml.safe_load(head) if not first and line else None
    if not isinstance(values, dict):
        return text
    index = (values.get("model-index") or [{"name": UNKNOWN, "results": []}])[0]
    kept = [one for one in index["results"] if one["metrics"][0].get("name") == IN_TRAINING]
    for what, figure in measured:
        left, _, right = what.partition(", ")
        is_measure = left in ("perplexity", "bits per byte")
        dataset, metric = (f"documents, {right}", left) if is_measure else (left, right or left)
        if figure is not None:
            kept.append(_result(dataset, metric, figure, what))
    values["model-index"] = [{**index, "results": kept}]
    return f"{between_lines(values)}\n{body}" if kept else text
