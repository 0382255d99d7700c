"""Runs lm-eval's tasks on a model, offline, and says of each what it measured, whatever its kind."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conf.errors import InputError
from elm_megatron.evaluate.task_files import EXTRA, load

# The figure that stands for a task, the first it has; lm-eval gives others their place behind these.
FIRST = (
    "acc_norm",
    "acc",
    "exact_match",
    "em",
    "f1",
    "rouge1",
    "bleu",
    "chrf",
    "bits_per_byte",
    "word_perplexity",
)


def is_installed() -> bool:
    """Whether lm-eval is here; it comes with the extra `eval`."""
    return find_spec("lm_eval") is not None


def missing_extra(tasks: list[str]) -> str:
    """What is said of tasks that cannot be run."""
    return f"note: the tasks {', '.join(tasks)} are left out, lm-eval is not installed; {EXTRA} brings it"


def run(
    model: Any,
    folder: Path,
    tasks: list[str],
    limit: int | None,
    batch_size: int,
    cache: Path,
    task_data: str | None = None,
) -> dict[str, dict[str, Any]]:
    """{task: figures}; see `figures`. Each also holds its `samples`, lm-eval's record of every item.

    Args:
        model: a causal language model of transformers.
        folder: holds its tokenizer.
        tasks: names or paths.
        limit: items per task, None is all.
        batch_size: items at a time.
        cache: folder for the tables lm-eval makes of the data.
        task_data: folder of the data sets of tasks from elsewhere.

    Raises:
        InputError: a task is unknown, or lm-eval cannot run it.
    """
    configs = [load(name, task_data) for name in tasks]
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ[variable] = "1"
    import lm_eval
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    # It lists all installed packages by pip, for every task, which takes longer than a small task.
    evaluator.add_env_info = lambda storage: None
    results: dict[str, dict[str, Any]] = {}
    for name, config in zip(tasks, configs, strict=True):
        config["dataset_kwargs"]["cache_dir"] = str(cache)
        try:
            found = lm_eval.simple_evaluate(
                model=wrapped,
                tasks=[config],
                limit=limit,
                bootstrap_iters=0,
                log_samples=True,
                verbosity="ERROR",
            )
        except Exception as error:  # a task file is a program of lm-eval's, with any error of one
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"tasks={name}: lm-eval cannot run it ({type(error).__name__}: {reason})."
            ) from error
        for task, result in found["results"].items():
            items = (found.get("n-samples") or {}).get(task, {}).get("effective")
            samples = (found.get("samples") or {}).get(task) or []
            measured = figures(result, items)
            mine = of_filter(samples, measured["metric"])
            results[task] = {**measured, "bits_per_byte": answer_bits(mine), "samples": mine}
    return results


def figures(result: Mapping[str, Any], items: int | None) -> dict[str, Any]:
    """What a task measured: metric, value, error, items, all metrics; `accuracy` where it is one.

    Args:
        result: lm-eval's {"<metric>,<filter>": value, "<metric>_stderr,<filter>": …, "alias": …}.
        items: how many items were measured.
    """
    numbers = {
        key: float(value)
        for key, value in result.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and "," in key
        and "_stderr," not in key
    }
    if not numbers:
        return {"metric": None, "value": None, "error": None, "items": items, "metrics": {}}
    first = min(numbers, key=_rank)
    metric, _, used = first.partition(",")
    error = result.get(f"{metric}_stderr,{used}")
    accuracy = metric in ("acc", "acc_norm")
    if accuracy and items:
        error = (numbers[first] * (1 - numbers[first]) / items) ** 0.5
    found = {
        "metric": metric if used == "none" else f"{metric} ({used})",
        "value": numbers[first],
        "error": error if isinstance(error, float) else None,
        "items": items,
        "metrics": numbers,
    }
    return {**found, "accuracy": numbers[first]} if accuracy else found


def answer_bits(samples: list[dict[str, Any]]) -> float | None:
    """Bits per UTF-8 byte of the right answers, over all items of a task whose answers are chosen.

    A small model chooses at random long before it is good enough for an accuracy above chance; how likely it
    finds the right answer falls smoothly from the first steps on.

    Args:
        samples: lm-eval's records, each with the (context, answer) of every choice, the log-likelihood of
            every answer in nats, and `target`, the index of the right one.

    Returns:
        None for a task of another kind.
    """
    nats, size = 0.0, 0
    for sample in samples:
        try:
            right = int(sample["target"])
            answer = str(sample["arguments"][right][1])
            nats -= float(sample["filtered_resps"][right][0])
        except (KeyError, IndexError, TypeError, ValueError):
            return None
        size += len(answer.encode())
    return nats / math.log(2) / size if size else None


def of_filter(samples: list[dict[str, Any]], metric: str | None) -> list[dict[str, Any]]:
    """The records behind a metric: lm-eval has one of every item for each filter of a task.

    Args:
        samples: of one task.
        metric: as in `figures`, with the filter in brackets.
    """
    used = metric.partition(" (")[2][:-1] if metric and metric.endswith(")") else "none"
    mine = [sample for sample in samples if sample.get("filter", used) == used]
    return mine or samples


def _rank(key: str) -> tuple[int, int]:
    metric, _, used = key.partition(",")
    return FIRST.index(metric) if metric in FIRST else len(FIRST), used != "none"
