"""From a Hugging Face Llama folder to a run with a checkpoint that loads in any layout.

    runs/<name>/checkpoints/step-00000000/part-00000.safetensors …   one file per part of the model
    runs/<name>/tokenizer/                                           the folder's tokenizer and config.json

Tensors are stored whole and in fp32; each rank of a later run reads its own rectangles.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from data_prep.errors import InputError
from elm_megatron.engine import checkpoint as checkpoints
from elm_megatron.engine.shards import Piece, Place, write_file
from elm_megatron.hf import architecture, gate, names, tokenizer_files
from elm_megatron.hf.config import ImportConfig
from elm_megatron.hf.export import Source, run_gate
from elm_megatron.hf.source import TOKENIZER_FOLDER, require_hf_folder
from elm_megatron.hf.weights import FolderWeights, RunWeights
from elm_megatron.run_folder import RunFolder, write_atomically


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
    if checkpoints.committed(run):
        if before and before["identity"] == weights.identity:
            run.update(state="done")
            print(f"{run.path} already holds {folder}", flush=True)
            return before
        raise InputError(f"run.dir={run.path}: holds another model's checkpoints; give another run.name.")
    run.update(state="running", started=time.time())
    began = time.perf_counter()
    _copy_tokenizer(folder, run.path / TOKENIZER_FOLDER)
    temporary = run.checkpoints / f".{checkpoints.step_name(0)}.import.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700, parents=True)
    manifest = _write(weights, temporary)
    write_seconds = time.perf_counter() - began
    final = run.checkpoints / checkpoints.step_name(0)
    temporary.rename(final)
    try:
        difference, gate_seconds = _gate(run, folder)
    except gate.GateError:
        shutil.rmtree(final)
        raise
    write_atomically(run.latest, f"{final.name}\n")
    figures = {
        "source": str(folder),
        "identity": weights.identity,
        "bytes": sum(entry["bytes"] for entry in manifest["files"].values()),
        "write_seconds": write_seconds,
        "gate_seconds": gate_seconds,
        "gate": vars(difference),
    }
    run.update(state="done", step=0, seconds=write_seconds + gate_seconds, **{"import": figures})
    print(
        f"{final}: {figures['bytes'] / 1e6:,.1f} MB in {write_seconds:.1f} s; gate: logits equal "
        f"transformers' within {difference.rounded:.1e} over {difference.tokens} tokens "
        f"({gate_seconds:.1f} s)",
        flush=True,
    )
    return figures


def _write(weights: FolderWeights, folder: Path) -> dict[str, Any]:
    """Write all parts and the manifest into a step folder; returns the manifest."""
    files = {}
    for number, part in enumerate(names.parts(weights.model)):
        pieces = []
        for name, tensor in weights.part(part).items():
            shape, zeros = tuple(tensor.shape), (0,) * tensor.dim()
            place = Place("weight", name, shape, zeros, shape, 0, tensor.numel())
            pieces.append(Piece(place, tensor.to(torch.float32).contiguous().view(-1)))
        file = f"part-{number:05d}.safetensors"
        files[file] = write_file(folder / file, pieces)
    manifest = {"schema": checkpoints.SCHEMA, "step": 0, "consumed_samples": 0, "loss": None, "files": files}
    write_atomically(folder / "manifest.json", json.dumps(manifest))
    return manifest


def _copy_tokenizer(source: Path, target: Path) -> None:
    """Keep the tokenizer's files and config.json, whose ids and dtype an export writes again."""
    target.mkdir(mode=0o700, exist_ok=True)
    for name in ("config.json", *tokenizer_files.COPIED):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    tokenizer_files.of_folder(target)


def _gate(run: RunFolder, folder: Path) -> tuple[gate.Difference, float]:
    """Megatron with the checkpoint just written against the folder, both in fp32."""
    tokenizer = tokenizer_files.of_run(run, None)
    source = Source(run.path, run, RunWeights(run, 0), tokenizer)
    return run_gate(source, None, FolderWeights(folder), architecture.read_config(folder))
