"""Measures models and sets them side by side: evaluation.json, evaluation.md, evaluation.png."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from conf.errors import InputError
from conf.schema.hf import EvalConfig
from data_prep import files
from data_prep.manifest import Manifest
from elm_megatron.card import card
from elm_megatron.evaluate import generate, perplexity, tasks_run
from elm_megatron.hf import tokenizer_writer
from elm_megatron.model import device as devices
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.lineage import dataset_of, stages_of
from elm_megatron.sources.source import ModelSource, resolve, side_by_side
from elm_megatron.sources.tokenizer_files import TokenizerSource

Results = dict[str, dict[str, Any]]  # {model: {"perplexity": {group: …}, "tasks": {task: …}}}


def evaluate(config: EvalConfig) -> Results:
    """Measure every model, write the files and the models' cards.

    Raises:
        InputError: a model, the dataset or a task is missing, or a model stands twice.
    """
    run = RunFolder(config.run.dir)
    run.update(state="running")
    for task in config.tasks:
        tasks_run.load(task)
    models = {name: resolve(source) for name, source in side_by_side(config.sources).items()}
    manifest = dataset(config, next(iter(models.values()))) if config.split else None
    works = perplexity.documents(manifest, config.split, config.max_documents) if manifest else []
    results: Results = {}
    for name, source in models.items():
        results[name] = _measure(config, source, works, run.path / ".cache")
        one = {name: results[name]}
        print(f"{markdown(one)}\n", flush=True)
        card.put_evaluation(source.folder, _card_section(config, manifest, one))
    files.write(run.path / "evaluation.json", json.dumps(results, indent=1) + "\n")
    files.write(run.path / "evaluation.md", markdown(results) + "\n")
    draw(results, run.path / "evaluation.png")
    if len(results) > 1:
        print(markdown(results), flush=True)
    run.update(state="done", evaluation=results, manifest_sha256=manifest.sha256 if manifest else None)
    return results


def _measure(config: EvalConfig, source: ModelSource, works: list[Any], cache: Path) -> dict[str, Any]:
    device = devices.named(config.cluster.device)
    model, tokenizer = generate.load(source, device), source.tokenizer
    model = model.eval().to(device)
    result: dict[str, Any] = {"perplexity": {}, "tasks": {}}
    if works:
        first = tokenizer.first_id
        result["perplexity"] = perplexity.measure(model, tokenizer.folder, first, works, config.window)
    if config.tasks:
        with TemporaryDirectory() as scratch:
            settings = source.folder if source.run is None else Path(scratch)
            if source.run is not None:
                _write_tokenizer(model, tokenizer, settings)
            figures = tasks_run.run(model, settings, config.tasks, config.limit, config.batch_size, cache)
        result["tasks"] = figures
    return result


def _write_tokenizer(model: Any, tokenizer: TokenizerSource, folder: Path) -> None:
    """Put the tokenizer of a run where transformers, and so lm-eval, can read it."""
    (folder / "config.json").write_text(model.config.to_json_string(), encoding="utf-8")
    tokenizer_writer.write(tokenizer, folder, model.config.max_position_embeddings)


def dataset(config: EvalConfig, first: ModelSource) -> Manifest:
    """The dataset given, or the one the first model was trained on.

    Raises:
        InputError: it cannot be found out.
    """
    folder = config.data.dir or dataset_of(stages_of(first.folder, first.merged))
    if folder is None:
        raise InputError(
            f"source={config.sources[0]} names no dataset; give data.dir=<folder>, or split=null."
        )
    return Manifest.load(Path(folder).expanduser())


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


def _card_section(config: EvalConfig, manifest: Manifest | None, results: Results) -> str:
    (result,), notes = results.values(), []
    if manifest is not None:
        documents = result["perplexity"]["all"]["documents"]
        notes.append(
            f"Perplexity per token of the model's own tokenizer, on {documents:,} documents of the "
            f"{config.split} split of `{manifest.corpus}` (manifest sha256 `{manifest.sha256}`)."
        )
    if result["tasks"]:
        sizes = ", ".join(f"{task} {figures['items']} items" for task, figures in result["tasks"].items())
        notes.append(f"Tasks choose one of four answers, so that chance is 0.25: {sizes}.")
    return f"{markdown(results)}\n\n{' '.join(notes)}"


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
