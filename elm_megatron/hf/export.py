"""From a run's checkpoint to a Hugging Face folder, tensor by tensor, checked before it gets its name.

    runs/<name>/.model.<pid>.tmp/      while being written
    runs/<name>/model/                 weights, config.json, tokenizer files, README.md (the model card), and
                                       what is published with it (elm_megatron/bundle)

One CPU process, whatever layout wrote the checkpoint. The gate (gate.py) runs on the written file; only then
is the folder renamed.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import time
from typing import Any

from conf.names import MODEL_FOLDER
from conf.schema.hf import ExportConfig
from data_prep import files
from elm_megatron.bundle import write as bundle
from elm_megatron.card import card
from elm_megatron.hf import gate, hf_folder
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.affected import manifests_behind
from elm_megatron.sources.lineage import stages_of
from elm_megatron.sources.places import GGUF_FILE
from elm_megatron.sources.source import ModelSource, resolve


def open_source(config: ExportConfig) -> ModelSource:
    """The model to export, opened and verified.

    Raises:
        InputError: it does not exist, is damaged, or its tokenizer is not the one trained with.
    """
    source = resolve(config.source, config.step, config.adapter, config.data.dir)
    source.weights, source.tokenizer  # noqa: B018 - opened here, before anything is written
    return source


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
    before = run.read().get("export") or {}
    given = _recipients(before, config)
    if done is not None:
        bundle.write(run.path / done["path"], config, source, done)
        run.update(state="done", export={**done, **given})
        print(f"{run.path / done['path']} is already the export of this checkpoint", flush=True)
        return done
    _remove_leftovers(run)
    run.update(state="running", started=time.time())
    try:
        figures = {**_write(config, source, run), "key": key, **given}
    finally:
        _remove_leftovers(run)
    run.update(state="done", seconds=figures["write_seconds"] + figures["gate_seconds"], export=figures)
    _report(run, figures)
    return figures


def _write(config: ExportConfig, source: ModelSource, run: RunFolder) -> dict[str, Any]:
    """Write under a temporary name, check, describe, and give it its name; returns the figures."""
    if config.format == "gguf":
        from elm_megatron.hf import gguf_file

        name, write = GGUF_FILE, gguf_file.write
    else:
        name, write = MODEL_FOLDER, hf_folder.write
    temporary = run.path / f".{name}.{time.time_ns()}.tmp"
    began = time.perf_counter()
    written = write(config, source, temporary)
    seconds = time.perf_counter() - began
    difference, gated = gate.check(
        source.weights, source.tokenizer.folder, written.rounding, written.exported, written.settings
    )
    figures = {
        "path": name,
        "source": str(source.folder),
        "adapter": source.merged and str(source.merged),
        "step": source.weights.step,
        "dtype": written.dtype,
        "files": written.files,
        "bytes": sum(entry["bytes"] for entry in written.files.values()),
        "write_seconds": seconds,
        "gate_seconds": gated,
        "gate": vars(difference),
        "manifests": manifests_behind(stages_of(source.folder, source.merged)),
    }
    if config.format == "hf":
        card.write(temporary, config, source, figures)
        bundle.write(temporary, config, source, figures)
    files.replace_folder(temporary, run.path / name)
    return figures


def _recipients(before: dict[str, Any], config: ExportConfig) -> dict[str, Any]:
    """Everybody who got an export of this run, with the day of the command; nobody is forgotten."""
    known = list(before.get("recipients") or [])
    names = {entry["who"] for entry in known}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    new = dict.fromkeys(name.strip() for name in config.recipients)
    known += [{"who": name, "date": today} for name in new if name not in names]
    return {"recipients": known} if known else {}


def _remove_leftovers(run: RunFolder) -> None:
    """Remove what an export that ended early, this one or a killed one, wrote."""
    for leftover in run.path.glob(f".{MODEL_FOLDER}*.tmp"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _key(config: ExportConfig, source: ModelSource) -> str:
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
