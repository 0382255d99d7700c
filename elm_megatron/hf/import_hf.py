"""From a Hugging Face Llama folder to a run with a checkpoint that loads in any layout.

    runs/<name>/checkpoints/step-00000000/part-00000.safetensors …   one file per part of the model
    runs/<name>/tokenizer/                                           the folder's tokenizer and config.json

Tensors are stored whole and in fp32; each rank of a later run reads its own rectangles.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from conf.errors import InputError
from conf.schema.hf import ImportConfig
from data_prep import files
from elm_megatron.checkpoint import manifest
from elm_megatron.checkpoint.shards import Shard, write_file
from elm_megatron.hf import gate, tokenizer_writer
from elm_megatron.model import hf_config, hf_names
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import committed, step_name
from elm_megatron.sources import tokenizer_files
from elm_megatron.sources.affected import manifests_behind
from elm_megatron.sources.lineage import stages_of
from elm_megatron.sources.places import TOKENIZER_FOLDER, require_hf_folder
from elm_megatron.sources.weights import CheckpointWeights, FolderWeights, is_same


def import_hf(config: ImportConfig) -> dict[str, Any]:
    """Write the checkpoint and the tokenizer; returns its figures, which also stand in run.json.

    Needs megatron-core's process groups of one rank, for the gate.

    Raises:
        InputError: the folder is no Llama this suite can hold, or the run folder holds another model.
        GateError: Megatron computes something else than transformers.
    """
    run, folder = RunFolder(config.run.dir), require_hf_folder(config.source)
    weights = FolderWeights(folder)
    before = run.read().get("import")
    if committed(run):
        if before is None:
            raise InputError(f"run.dir={run.path}: holds checkpoints of another run; give another run.name.")
        if not is_same(before["identity"], weights.identity):
            raise InputError(
                f"run.dir={run.path}: holds {before['source']} as it was when it was imported; give another "
                "run.name."
            )
        run.update(state="done")
        print(f"{run.path} already holds {folder}", flush=True)
        return before
    run.update(state="running", started=time.time())
    temporary = run.checkpoints / f".{step_name(0)}.import.tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # of an import that was killed
    temporary.mkdir(mode=0o700, parents=True)
    try:
        figures = _write_and_check(run, folder, weights, temporary)
        # The record first: a checkpoint without it would be taken for another run's.
        run.update(**{"import": figures})
        final = run.checkpoints / step_name(0)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    files.write(run.latest, f"{final.name}\n")
    run.update(state="done", step=0, seconds=figures["write_seconds"] + figures["gate_seconds"])
    print(
        f"{final}: {figures['bytes'] / 1e6:,.1f} MB in {figures['write_seconds']:.1f} s; gate: logits equal "
        f"transformers' within {figures['gate']['rounded']:.1e} over {figures['gate']['tokens']} tokens "
        f"({figures['gate_seconds']:.1f} s)",
        flush=True,
    )
    return figures


def _write_and_check(run: RunFolder, folder: Path, weights: FolderWeights, target: Path) -> dict[str, Any]:
    """Write the tokenizer and a step folder, and run the gate on it; returns the import's figures."""
    began = time.perf_counter()
    _copy_tokenizer(folder, run.path / TOKENIZER_FOLDER)
    size = _write(weights, target)
    written = time.perf_counter() - began
    difference, gated = gate.check(
        CheckpointWeights(weights.model, target),
        run.path / TOKENIZER_FOLDER,
        None,
        FolderWeights(folder),
        hf_config.read_config(folder),
    )
    return {
        "source": str(folder),
        "identity": weights.identity,
        "bytes": size,
        "write_seconds": written,
        "gate_seconds": gated,
        "gate": vars(difference),
        "manifests": manifests_behind(stages_of(folder)),
    }


def _write(weights: FolderWeights, folder: Path) -> int:
    """Write all parts and the manifest into a step folder; returns the bytes of the parts."""
    entries = {}
    for number, part in enumerate(hf_names.parts(weights.model)):
        shards = [Shard.whole(name, tensor) for name, tensor in weights.part(part).items()]
        file = f"part-{number:05d}.safetensors"
        entries[file] = write_file(folder / file, shards)
    manifest.write(folder, {"step": 0, "consumed_samples": 0, "loss": None, "files": entries})
    return sum(entry["bytes"] for entry in entries.values())


def _copy_tokenizer(source: Path, target: Path) -> None:
    """Keep the tokenizer's files and config.json, whose ids and dtype an export writes again."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    shutil.copyfile(source / "config.json", target / "config.json")
    tokenizer_writer.copy(source, target)
    tokenizer_files.of_folder(target)
