"""Measures models and sets them side by side: evaluation.json, evaluation.md, evaluation.png."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from conf.errors import InputError
from conf.schema.hf import EvalConfig
from data_prep import files
from data_prep.manifest import Manifest
from elm_megatron.card import card
from elm_megatron.evaluate import decontaminate, generate, memorization, perplexity, task_files, tasks_run
from elm_megatron.hf import tokenizer_writer
from elm_megatron.model import device as devices
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.lineage import dataset_of, stages_of
from elm_megatron.sources.source import ModelSource, resolve, side_by_side
from elm_megatron.sources.tokenizer_files import TokenizerSource

CONTAMINATED = "contaminated.jsonl"  # the items of tasks that are in the training data
# {model: {"perplexity": {group: …}, "tasks": {task: …}}}, and "memorization" where that was asked for
Results = dict[str, dict[str, Any]]


def evaluate(config: EvalConfig) -> Results:
    """Measure every model, write the files and the models' cards.

    Raises:
        InputError: a model, the dataset or a task is missing, or a model stands twice.
    """
    run = RunFolder(config.run.dir)
    run.update(state="running")
    tasks = _tasks(config)
    models = {name: resolve(source) for name, source in side_by_side(config.sources).items()}
    needed = config.split or config.memorization
    manifest = dataset(config, next(iter(models.values()))) if needed else None
    works: list[Any] = []
    if manifest is not None and config.split:
        works = perplexity.documents(manifest, config.split, config.max_documents)
    results: Results = {}
    for name, source in models.items():
        results[name] = measure(config, source, manifest, works, tasks, run.path / ".cache")
        if manifest is not None and config.eval.decontaminate:
            _decontaminate(results[name]["tasks"], manifest, run.path / CONTAMINATED)
        for figures in results[name]["tasks"].values():
            figures.pop("samples")
        one = {name: results[name]}
        print(f"{markdown(one)}\n", flush=True)
        measured = [(what, found[0]) for what, found in rows(one)]
        card.put_evaluation(source.folder, _card_section(config, manifest, one), measured)
    files.write(run.path / "evaluation.json", json.dumps(results, indent=1) + "\n")
    files.write(run.path / "evaluation.md", markdown(results) + "\n")
    draw(results, run.path / "evaluation.png")
    if len(results) > 1:
        print(markdown(results), flush=True)
    run.update(state="done", evaluation=results, manifest_sha256=manifest.sha256 if manifest else None)
    return results


def _tasks(config: EvalConfig) -> list[str]:
    """The tasks that can be run; what they need is said where lm-eval is not installed.

    Raises:
        InputError: a task is unknown, its data are missing, two have one name, or nothing is left to measure.
    """
    if not config.tasks:
        return []
    if not tasks_run.is_installed():
        if config.split is None:
            raise InputError("tasks: lm-eval is not installed; pip install -e .[eval], or give split=valid.")
        print(tasks_run.missing_extra(config.tasks), file=sys.stderr, flush=True)
        return []
    names: dict[str, str] = {}
    for task in config.tasks:
        name = task_files.load(task, config.eval.task_data)["task"]
        if name in names:
            raise InputError(f"tasks={task}: is called {name}, as is {names[name]}; give one of them.")
        names[name] = task
    return config.tasks


def _decontaminate(tasks: dict[str, dict[str, Any]], manifest: Manifest, listing: Path) -> None:
    """Count, for each task, the items that are in the training documents, and measure without them."""
    documents = decontaminate.training_documents(manifest)
    if documents is None or not tasks:
        return
    items = {task: [sample.get("doc") for sample in figures["samples"]] for task, figures in tasks.items()}
    found = decontaminate.contaminated(items, documents)
    rows = []
    for task, figures in tasks.items():
        metric = (figures["metric"] or "").split(" (")[0]
        figures["contaminated"] = {
            "items": len(found[task]),
            "numbers": sorted(found[task]),
            "value_without": decontaminate.without(figures["samples"], metric, found[task]),
        }
        rows += [
            {"task": task, "number": n, "document": document, "item": items[task][n]}
            for n, document in sorted(found[task].items())
        ]
    text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    files.write(listing, text)


def measure(
    config: EvalConfig,
    source: ModelSource,
    manifest: Manifest | None,
    works: list[Any],
    tasks: list[str],
    cache: Path,
) -> dict[str, Any]:
    """The figures of one model.

    Every model computes in fp32, a run and its export alike, so that what differs is the weights.

    Args:
        config: says how it is measured.
        source: the model.
        manifest: of the dataset, for what the model has memorised; None skips that.
        works: documents for its perplexity; none skips it.
        tasks: names or paths.
        cache: folder for the tables lm-eval makes of the data.

    Returns:
        {"dtype": …, "perplexity": {group: …}, "tasks": {task: …}}; a task's figures hold its `samples`.
    """
    device = devices.named(config.cluster.device)
    devices.full_fp32()
    model, tokenizer = generate.load(source, device, torch.float32), source.tokenizer
    model = model.eval().to(device)
    result: dict[str, Any] = {"dtype": _dtype(model), "perplexity": {}, "tasks": {}}
    if works:
        first = tokenizer.first_id
        result["perplexity"] = perplexity.measure(model, tokenizer.folder, first, works, config.window)
    if manifest is not None and config.memorization:
        result["memorization"] = memorization.measure(
            model, tokenizer, manifest, config.recall, config.batch_size
        )
    if tasks:
        with TemporaryDirectory() as scratch:
            settings = source.folder if source.run is None else Path(scratch)
            if source.run is not None:
                _write_tokenizer(model, tokenizer, settings)
            result["tasks"] = tasks_run.run(
                model, settings, tasks, config.limit, config.batch_size, cache, config.eval.task_data
            )
    return result


def _dtype(model: torch.nn.Module) -> str:
    """The types of a model's parameters, as fp32."""
    short = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    return ", ".join(sorted({short.get(p.dtype, str(p.dtype)) for p in model.parameters()}))


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
    found: dict[str, dict[str, float | None]] = {}
    for model, result in results.items():
        for group, figures in result["perplexity"].items():
            found.setdefault(f"perplexity, {group}", {})[model] = figures["perplexity"]
            found.setdefault(f"bits per byte, {group}", {})[model] = figures["bits_per_byte"]
        for task, figures in result["tasks"].items():
            what = f"{task}, {'accuracy' if 'accuracy' in figures else figures['metric']}"
            found.setdefault(what, {})[model] = figures["value"]
            if figures.get("bits_per_byte") is not None:
                found.setdefault(f"{task}, bits per byte of answers", {})[model] = figures["bits_per_byte"]
            seen = figures.get("contaminated")
            if seen and seen["items"]:
                found.setdefault(f"{what}, without contaminated items", {})[model] = seen["value_without"]
        for what, figure in memorization.rows(result.get("memorization")):
            found.setdefault(what, {})[model] = figure
    return [(what, [figures.get(model) for model in results]) for what, figures in found.items()]


def markdown(results: Results) -> str:
    """All models side by side as a Markdown table."""
    lines = [(what, *("" if f is None else f"{f:.4g}" for f in figures)) for what, figures in rows(results)]
    lines.insert(0, ("computed in", *(result.get("dtype", "") for result in results.values())))
    return card.table(lines, ("measure", *results))


def _card_section(config: EvalConfig, manifest: Manifest | None, results: Results) -> str:
    (result,), notes = results.values(), []
    if manifest is not None and result["perplexity"]:
        documents = result["perplexity"]["all"]["documents"]
        notes.append(
            f"Perplexity per token of the model's own tokenizer, on {documents:,} documents of the "
            f"{config.split} split of `{manifest.corpus}` (manifest sha256 `{manifest.sha256}`)."
        )
    if result["tasks"]:
        sizes = ", ".join(f"{task} {figures['items']}" for task, figures in result["tasks"].items())
        notes.append(f"Items: {sizes}. A choice of one of four answers is right by chance 0.25 of the time.")
        notes += _contamination(result["tasks"])
    if "memorization" in result:
        notes += memorization.sentences(result["memorization"])
    return f"{markdown(results)}\n\n{' '.join(notes)}"


def _contamination(tasks: dict[str, dict[str, Any]]) -> list[str]:
    """What is known of items in the training data, as sentences."""
    checked = {task: figures["contaminated"] for task, figures in tasks.items() if "contaminated" in figures}
    if not checked:
        return ["Whether items are in the training data is unknown."]
    counts = ", ".join(f"{task} {seen['items']}" for task, seen in checked.items())
    return [f"Items of which 13 words in a row are in the training data: {counts}."]


def draw(results: Results, path: Path) -> None:
    """Bits per byte and accuracy of all models as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [
        (title, [(what.split(", ", 1)[cut], figures) for what, figures in rows(results) if key(what)])
        for title, key, cut in (("bits per byte", _is_bits, 1), ("accuracy", _is_accuracy, 0))
    ]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return
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


def _is_bits(what: str) -> bool:
    return what.startswith("bits per byte")


def _is_accuracy(what: str) -> bool:
    return what.endswith(", accuracy")
