"""From a run's checkpoint to a Hugging Face folder, tensor by tensor, checked before it gets its name.

    runs/<name>/.model.<pid>.tmp/      while being written
    runs/<name>/model/                 weights, config.json, tokenizer files, README.md (the model card)

One CPU process, whatever layout wrote the checkpoint. The gate (gate.py) runs on the written file; only then
is the folder renamed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conf.errors import InputError
from conf.schema.hf import ExportConfig
from elm_megatron.evaluate.texts import passages
from elm_megatron.hf import architecture, gate, names
from elm_megatron.hf.writer import DTYPES, SafetensorsWriter
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources import tokenizer_files
from elm_megatron.sources.source import (
    MODEL_FOLDER,
    TOKENIZER_FOLDER,
    base_of,
    hf_folder,
    is_hf_folder,
    locate,
    run_config,
)
from elm_megatron.sources.tokenizer_files import TokenizerSource
from elm_megatron.sources.weights import FolderWeights, RunWeights, Weights

PRECISION_DTYPE = {"fp32": "fp32", "bf16": "bf16", "fp8": "bf16"}


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        path: the run's or the Hugging Face folder.
        run: the run, or None for a Hugging Face folder.
        weights: the (merged) weights.
        tokenizer: where the tokenizer comes from.
        adapter: the PEFT folder that was merged into them, where one was given.
    """

    path: Path
    run: RunFolder | None
    weights: Weights
    tokenizer: TokenizerSource
    adapter: Path | None = None


def open_source(config: ExportConfig) -> Source:
    """Open and verify what `source` and `step` name.

    Raises:
        InputError: it does not exist, fails its verification, or its tokenizer is not the one trained with.
    """
    folder = hf_folder(config.source)
    if folder is not None:
        if config.step is not None:
            raise InputError(
                f"step={config.step}: source={config.source} is a Hugging Face folder; use null."
            )
        source = Source(folder, None, FolderWeights(folder), tokenizer_files.of_folder(folder))
    else:
        run = RunFolder(locate(config.source))
        weights = _run_weights(run, config.step)
        source = Source(run.path, run, weights, tokenizer_files.of_run(run, config.data.dir))
    found, held = source.tokenizer.info.vocab_size, source.weights.model.vocab_size
    if found > held:
        raise InputError(
            f"source={config.source}: the tokenizer has {found} pieces, the model's vocab_size is {held}."
        )
    return source if config.adapter is None else _with_adapter(source, config.adapter)


def _run_weights(run: RunFolder, step: int | None) -> Weights:
    """A run's weights; a finetune run's are its base's with its adapter merged."""
    if base_of(run) is None:
        return RunWeights(run, step)
    from elm_megatron.hf.adapters import locate as adapter_folder
    from elm_megatron.sources.tuning import resolve

    if step is not None:
        raise InputError(
            f"step={step}: {run.path.name} is a finetune run, whose finished adapter is exported; use null."
        )
    base = resolve(str(run_config(run)["source"]))
    weights = RunWeights(RunFolder(base.folder), base.step) if base.is_run else FolderWeights(base.folder)
    return _merged(weights, adapter_folder(str(run.path)))


def _with_adapter(source: Source, adapter: str) -> Source:
    """The source with an adapter merged in, and the prompts that one was tuned with."""
    from elm_megatron.hf import adapters

    folder, tokenizer = adapters.locate(adapter), source.tokenizer
    template = adapters.template_of(adapter) or tokenizer.template
    return dataclasses.replace(
        source,
        weights=_merged(source.weights, folder),
        tokenizer=dataclasses.replace(tokenizer, template=template, tuned=True),
        adapter=folder,
    )


def _merged(weights: Weights, adapter: Path) -> Weights:
    """The weights with a PEFT adapter merged in fp32, on the base it was trained on."""
    from elm_megatron.hf import adapters
    from elm_megatron.sources.base import fingerprint

    found = adapters.read(adapter, weights.model)
    found.require_base(fingerprint(weights))
    return adapters.MergedWeights(weights, found)


def default_dtype(source: Source) -> str:
    """The type a run computed in; a Hugging Face folder's, or an import's, own type."""
    settings = [source.path, source.path / TOKENIZER_FOLDER]
    folder = next((f for f in settings if is_hf_folder(f)), None)
    if folder is not None:
        stored = architecture.read_config(folder)
        wanted = stored.get("dtype") or stored.get("torch_dtype")
        return next((k for k, v in architecture.TORCH_DTYPES.items() if v == wanted), "fp32")
    values = run_config(RunFolder(source.path))
    precision = (values.get("train") or values.get("tune") or {}).get("precision", "fp32")
    return PRECISION_DTYPE.get(precision, "fp32")


def export(config: ExportConfig) -> dict[str, Any]:
    """Write the folder (or GGUF file) and return its figures, which also stand in the run's run.json.

    Needs megatron-core's process groups of one rank, for the gate.

    Raises:
        InputError: the source cannot be exported.
        GateError: the written file computes something else.
    """
    run = RunFolder(config.run.dir)
    source = open_source(config)
    key = _key(config, source)
    done = _already(run, key)
    if done is not None:
        run.update(state="done")
        print(f"{run.path / done['path']} is already the export of this checkpoint", flush=True)
        return done
    _remove_leftovers(run)
    run.update(state="running", started=time.time())
    try:
        if config.format == "gguf":
            from elm_megatron.hf.gguf_file import export_gguf

            figures = export_gguf(config, source, run)
        else:
            figures = export_folder(config, source, run)
    finally:
        _remove_leftovers(run)
    figures["key"] = key
    run.update(state="done", seconds=figures["write_seconds"] + figures["gate_seconds"], export=figures)
    _report(run, figures)
    return figures


def _remove_leftovers(run: RunFolder) -> None:
    """Remove what an export that ended early, this one or a killed one, wrote."""
    for leftover in run.path.glob(f".{MODEL_FOLDER}*.tmp"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def export_folder(config: ExportConfig, source: Source, run: RunFolder) -> dict[str, Any]:
    """Write `<run>/model`; see `export`."""
    from elm_megatron.card import card

    dtype = config.dtype or default_dtype(source)
    model, info = source.weights.model, source.tokenizer.info
    temporary = run.path / f".{MODEL_FOLDER}.{time.time_ns()}.tmp"
    temporary.mkdir(mode=0o700)
    began = time.perf_counter()
    writer = SafetensorsWriter(temporary, model, dtype, int(config.shard_gb * 1e9))
    for name, tensor in hf_tensors(source.weights):
        writer.write(name, tensor)
    writer.finish()
    written = time.perf_counter() - began
    settings = architecture.config_json(model, info, dtype)
    (temporary / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    tokenizer_files.write(source.tokenizer, temporary, model.max_position_embeddings)
    rounding = None if dtype == "fp32" else round_to(DTYPES[dtype])
    difference, gated = run_gate(
        source, rounding, FolderWeights(temporary), architecture.read_config(temporary)
    )
    figures = {
        "path": MODEL_FOLDER,
        "source": str(source.path),
        "adapter": source.adapter and str(source.adapter),
        "step": source.weights.step,
        "dtype": dtype,
        "files": writer.files,
        "bytes": sum(entry["bytes"] for entry in writer.files.values()),
        "write_seconds": written,
        "gate_seconds": gated,
        "gate": vars(difference),
    }
    card.write(temporary, config, source, figures)
    replace(temporary, run.path / MODEL_FOLDER)
    return figures


def hf_tensors(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors under Hugging Face's names, one part in memory at a time."""
    for part in names.parts(weights.model):
        yield from names.to_hf(weights.model, part, weights.part(part))


def round_to(dtype: torch.dtype) -> gate.Rounding:
    """What storing in a type does to a tensor's numbers."""
    return lambda name, tensor: tensor.to(dtype)


def run_gate(
    source: Source, rounding: gate.Rounding | None, exported: gate.Exported, settings: dict[str, Any]
) -> tuple[gate.Difference, float]:
    """Compare the written file with Megatron; returns the differences and the seconds it took.

    Raises:
        GateError: they differ.
    """
    began = time.perf_counter()
    tokens = gate_tokens(source.tokenizer.folder, source.weights.model.max_position_embeddings)
    difference = gate.compare(source.weights, rounding, exported, settings, tokens)
    gate.require_equal(difference)
    return difference, time.perf_counter() - began


def gate_tokens(tokenizer: Path, max_length: int) -> torch.Tensor:
    """Dutch and English text as int64 [2, s]."""
    length = min(gate.LENGTH, max_length)
    encode = tokenizer_files.encoder(tokenizer)
    rows = [encode(text)[:length] for text in passages().values()]
    return torch.tensor([row[: min(map(len, rows))] for row in rows])


def replace(temporary: Path, final: Path) -> None:
    """Give a finished folder or file its name; an older one of that name goes."""
    if not final.is_dir():
        temporary.replace(final)
        return
    old = final.with_name(f".{final.name}.{time.time_ns()}.old.tmp")
    final.rename(old)
    temporary.rename(final)
    shutil.rmtree(old)


def _key(config: ExportConfig, source: Source) -> str:
    """Two exports of the same checkpoint with the same settings have the same key."""
    manifest = source.tokenizer.manifest
    settings = [config.format, config.dtype, config.shard_gb, config.licence, config.grams_per_kwh]
    text = json.dumps([settings, source.weights.identity, manifest and manifest.sha256])
    return hashlib.sha256(text.encode()).hexdigest()


def _already(run: RunFolder, key: str) -> dict[str, Any] | None:
    """The figures of an earlier export with the same key whose files are all there."""
    figures = run.read().get("export")
    if not figures or figures.get("key") != key:
        return None
    folder = run.path / figures["path"]
    for name, entry in figures["files"].items():
        path = folder / name if folder.is_dir() else run.path / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            return None
    return figures


def _report(run: RunFolder, figures: dict[str, Any]) -> None:
    size, seconds = figures["bytes"], figures["write_seconds"]
    print(
        f"{run.path / figures['path']}: {size / 1e6:,.1f} MB of {figures['dtype']} in {seconds:.1f} s "
        f"({size / 1e6 / seconds:,.0f} MB/s)",
        flush=True,
    )
    found = figures["gate"]
    print(
        f"gate: logits equal Megatron's within {found['rounded']:.1e} over {found['tokens']} tokens of Dutch "
        f"and English, {found['trained']:.1e} from the weights as trained ({figures['gate_seconds']:.1f} s)",
        flush=True,
    )
