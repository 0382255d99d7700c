"""Measures exported models and sets them side by side: evaluation.json, evaluation.md, evaluation.png."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from data_prep.errors import InputError
from data_prep.manifest import Manifest
from elm_megatron.hf import card, perplexity, tasks_run, tokenizer_files
from elm_megatron.hf.config import EvalConfig
from elm_megatron.hf.source import base_of, hf_folder, locate, require_hf_folder, run_config
from elm_megatron.run_folder import RunFolder, write_atomically

Results = dict[str, dict[str, Any]]  # {model: {"perplexity": {group: …}, "tasks": {task: …}}}


def evaluate(config: EvalConfig) -> Results:
    """Measure every model, write the files and the models' cards.

    Raises:
        InputError: a model, the dataset or a task is missing.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    run = RunFolder(config.run.dir)
    run.update(state="running")
    for task in config.tasks:
        tasks_run.load(task)
    manifest = dataset(config) if config.split else None
    works = perplexity.documents(manifest, config.split, config.max_documents) if manifest else []
    results: Results = {}
    for source in config.sources:
        folder = require_hf_folder(source)
        results[Path(source).name] = one = _measure(config, folder, works, run.path / ".cache")
        print(f"{source}:\n{markdown({source: one})}\n", flush=True)
        card.put_evaluation(folder, _card_section(config, manifest, source, one))
    write_atomically(run.path / "evaluation.json", json.dumps(results, indent=1) + "\n")
    write_atomically(run.path / "evaluation.md", markdown(results) + "\n")
    draw(results, run.path / "evaluation.png")
    if len(results) > 1:
        print(markdown(results), flush=True)
    run.update(state="done", evaluation=results, manifest_sha256=manifest.sha256 if manifest else None)
    return results


def _measure(config: EvalConfig, folder: Path, works: list[Any], cache: Path) -> dict[str, Any]:
    gpu = config.cluster.device == "gpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto" if gpu else torch.float32).eval()
    model = model.to("cuda" if gpu else "cpu")
    eos = tokenizer_files.of_folder(folder).info.eos_id
    result: dict[str, Any] = {"perplexity": {}, "tasks": {}}
    if works:
        result["perplexity"] = perplexity.measure(model, folder, eos, works, config.window)
    if config.tasks:
        result["tasks"] = tasks_run.run(model, folder, config.tasks, config.limit, config.batch_size, cache)
    return result


def dataset(config: EvalConfig) -> Manifest:
    """The dataset given, or the one the first model was trained on.

    Raises:
        InputError: it cannot be found out.
    """
    if config.data.dir is not None:
        return Manifest.load(Path(config.data.dir).expanduser())
    trained: str | None = RunFolder(locate(config.sources[0])).read().get("export", {}).get("source")
    while trained is not None and hf_folder(trained) is None:
        run = RunFolder(Path(trained))
        base = base_of(run)
        if base is None:
            folder = (run_config(run).get("data") or {}).get("dir")
            if folder:
                return Manifest.load(Path(folder).expanduser())
            break
        trained = base
    raise InputError(f"source={config.sources[0]} names no dataset; give data.dir=<folder>, or split=null.")


def rows(results: Results) -> list[tuple[str, list[float | None]]]:
    """(what is measured, its figure for each model or None)."""
    found: dict[str, dict[str, float]] = {}
    for model, result in results.items():
        for group, figures in result["perplexity"].items():
            found.setdefault(f"perplexity, {group}", {})[model] = figures["perplexity"]
            found.setdefault(f"bits per byte, {group}", {})[model] = figures["bits_per_byte"]
        for task, figures in result["tasks"].items():
            found.setdefault(f"{task}, accuracy", {})[model] = figures["accuracy"]
    return [(what, [figures.get(model) for model in results]) for what, figures in found.items()]


def markdown(results: Results) -> str:
    """All models side by side as a Markdown table."""
    lines = [(what, *("" if f is None else f"{f:.4g}" for f in figures)) for what, figures in rows(results)]
    return card.table(lines, ("measure", *results))


def _card_section(config: EvalConfig, manifest: Manifest | None, source: str, result: dict[str, Any]) -> str:
    notes = []
    if manifest is not None:
        documents = result["perplexity"]["all"]["documents"]
        notes.append(
            f"Perplexity per token of the model's own tokenizer, on {documents:,} documents of the "
            f"{config.split} split of `{manifest.corpus}` (manifest sha256 `{manifest.sha256}`)."
        )
    if result["tasks"]:
        sizes = ", ".join(f"{task} {figures['items']} items" for task, figures in result["tasks"].items())
        notes.append(f"Tasks choose one of four answers, so that chance is 0.25: {sizes}.")
    return f"{markdown({Path(source).name: result})}\n\n{' '.join(notes)}"


def draw(results: Results, path: Path) -> None:
    """Bits per byte and accuracy of all models as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [
        (title, [(what.split(", ", 1)[cut], figures) for what, figures in rows(results) if key in what])
        for title, key, cut in (("bits per byte", "bits per byte", 1), ("accuracy", ", accuracy", 0))
    ]
    panels = [panel for panel in panels if panel[1]]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(7 * len(panels), 4.5), squeeze=False)
    for axis, (title, bars) in zip(axes[0], panels, strict=True):
        width = 0.8 / len(results)
        for number, model in enumerate(results):
            heights = [figures[number] or 0.0 for _, figures in bars]
            axis.bar([i + number * width for i in range(len(bars))], heights, width, label=model)
        axis.set_xticks(
            [i + 0.4 - width / 2 for i in range(len(bars))], [name for name, _ in bars], rotation=30
        )
        axis.set_title(title)
        if title == "accuracy":
            axis.axhline(0.25, color="grey", ls="--", lw=1)
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
