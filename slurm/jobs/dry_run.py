"""What `dry_run=true` prints: size, layout, memory, time, budget and the batch script. Submits nothing.

The model is built on torch's meta device by `python -m elm_megatron.engine.preflight` in a process of its
own, since launchers have no torch. Hours and budget come from the planner; `launch/plan.py` shows its parts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from conf.errors import InputError
from conf.plain import plain
from conf.schema.data import TrainingData
from conf.schema.pretrain import PretrainConfig
from conf.schema.run import RunConfig
from conf.schema.train import TrainConfig
from elm_megatron.planner import footprint, layout, overhead, storage
from elm_megatron.planner.inputs import loop_key, loop_of
from elm_megatron.planner.length import Length, estimate, no_peak
from elm_megatron.planner.memory import cross_entropy, rank_parts
from elm_megatron.planner.show import short
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources import ownership
from slurm.jobs.notes import notes
from slurm.jobs.price import per_hour
from slurm.jobs.record import check_folder
from slurm.jobs.submit import script

GIB = 2**30
LABEL_WIDTH = 12


def show(config: Any) -> int:
    """Print everything about a pretraining or finetuning command without starting it.

    Returns:
        The exit status: 0.

    Raises:
        InputError: the model cannot be built in this layout, or the run folder has a refused name.
    """
    verb = "finetune" if hasattr(config, "tune") else "pretrain"
    check_run(config, verb)
    loop: TrainConfig = config.tune if verb == "finetune" else config.train
    found = preflight(_as_pretrain(config, loop))
    parallel = config.parallel
    line("model", f"{config.model.name}, {found['parameters']:,} parameters")
    if verb == "finetune":
        trainable = config.tune.trainable_parameters(config.model)
        line("adapter", f"r={config.tune.r} on {', '.join(config.tune.targets)}: {trainable:,} trainable")
    line(
        "layout",
        f"{config.world_size} ranks on {config.cluster.nodes} nodes: tp={parallel.tp} pp={parallel.pp} "
        f"vpp={parallel.vpp} cp={parallel.cp} sp={str(parallel.sp).lower()} dp={config.dp}",
    )
    if verb == "pretrain":
        line("kernels", kernels(found, config))
    line("batch", batch(config))
    line("memory", memory(config))
    guess = None
    trained = found["parameters"]
    if verb == "finetune":
        trained = config.tune.trainable_parameters(config.model)
    if verb == "pretrain":
        guess = estimate(config)
        line("length", f"{guess.steps:,} steps, {guess.tokens:,} tokens ({guess.basis})")
        line("time", _hours(guess, config))
        line("budget", _budget(guess, config))
        line("energy", _energy(guess, config))
    _show_storage(config, loop, trained, guess.steps if guess else loop.steps)
    show_start(config, config.world_size, verb)
    return 0


def _show_storage(config: Any, loop: TrainConfig, trained: int, steps: int | None) -> None:
    """What the run will write beside what there is room for, and what the site will delete.

    Raises:
        InputError: it does not fit.
    """
    site, run = config.cluster.site, RunFolder(config.run.dir)
    wanted = storage.need(trained, loop, steps, config.world_size)
    line("storage", storage.describe(wanted, storage.require_fits(wanted, run.path, site)))
    data = getattr(config, "data", None)
    for folder in [run.path, *([Path(data.dir)] if data else [])]:
        if date := storage.expiry(folder, site):
            line(
                "note",
                f"{folder}: {site.scratch} deletes its files from {date:%Y-%m-%d} on, unless they are used",
            )


def show_plain(config: Any, ranks: int, verb: str, what: str) -> int:
    """The dry run of a verb that trains nothing: what it reads and writes, and its script."""
    check_run(config, verb)
    line(verb, what)
    show_start(config, ranks, verb)
    return 0


def check_run(config: Any, verb: str) -> None:
    """Refuse a run folder that the command could not use.

    Raises:
        InputError: its name is refused, or it is another verb's or source's.
    """
    run = RunFolder(config.run.dir)
    check_folder(run.path)
    ownership.refuse_others(run, verb, plain(config))


def show_start(config: Any, ranks: int, verb: str) -> None:
    """The batch script, or what would be started here."""
    if config.cluster.executor == "slurm":
        for note in notes(config.job_cluster(), RunFolder(config.run.dir).path):
            line("note", note)
        print("script")
        print(script(config, ranks, verb))
    else:
        line("start", f"{ranks} processes, cluster={config.cluster.name}; nothing was started")


def line(label: str, text: str) -> None:
    """Print one labelled line."""
    print(f"{label:<{LABEL_WIDTH}}{text}")


def _as_pretrain(config: Any, loop: TrainConfig) -> PretrainConfig:
    """The base model's world, as the preflight reads it."""
    if isinstance(config, PretrainConfig):
        return config
    return PretrainConfig(
        run=RunConfig(config.run.name, config.run.dir),
        model=config.model,
        corpus=config.corpus,
        tokenizer=config.tokenizer,
        data=TrainingData(),
        train=TrainConfig(**{item.name: getattr(loop, item.name) for item in fields(TrainConfig)}),
        parallel=config.parallel,
        cluster=config.cluster,
    )


def preflight(config: PretrainConfig) -> dict[str, Any]:
    """Parameters and bytes per rank, from the model built on the meta device in another process.

    Raises:
        InputError: it could not be built; the last line of what went wrong.
    """
    with tempfile.TemporaryDirectory(prefix="elm-preflight-") as scratch:
        path = Path(scratch) / "config.yaml"
        path.write_text(yaml.safe_dump(plain(config)), encoding="utf-8")
        command = [sys.executable, "-m", "elm_megatron.engine.preflight", str(path)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise InputError(f"the model cannot be built in this layout: {lines[-1].strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def kernels(found: dict[str, Any], config: Any) -> str:
    """What will serve each operation, by the packages of this installation or of the container."""
    text = "; ".join([found["kernels"], *found["kernel_notes"]])
    if config.cluster.container:
        return f"those of {config.cluster.container}, which are not looked at; those installed here: {text}"
    return f"expected: {text}"


def batch(config: Any) -> str:
    """The global batch as micro-batches of each rank."""
    loop = loop_of(config)
    each = loop.global_batch_size // (loop.micro_batch_size * config.dp)
    share = f"dp={config.dp} × {each} micro-batches of {loop.micro_batch_size}"
    return f"{loop.global_batch_size} sequences = {share}"


def memory(config: Any) -> str:
    """Bytes of the fullest rank by part, beside what its GPU has."""
    found, group = rank_parts(config), loop_key(config)
    total, usable, device = sum(found.values()), layout.capacity(config), config.cluster.device
    text = f"{total / GIB:.2f} GiB on the fullest rank ({_parts(found)})"
    if group == "train":
        text += f", counted with {cross_entropy(config.train, device)} cross entropy"
    if device != "gpu":
        return text
    beside = overhead.beside(config)
    if usable is not None:
        text += f", of {config.cluster.site.gpu_memory_gb:g} GiB per GPU"
        if total > usable:
            text += (
                f"; IT DOES NOT FIT: raise parallel.tp or parallel.pp, or lower {group}.micro_batch_size "
                f"({usable / GIB:.1f} GiB are usable)"
            )
    return f"{text}; beside it about {sum(beside.values()) / GIB:.1f} GiB ({_parts(beside)})"


def _parts(found: dict[str, int]) -> str:
    return ", ".join(f"{name} {size / GIB:.2f}" for name, size in found.items())


def _hours(guess: Length, config: PretrainConfig) -> str:
    if guess.hours is None:
        return f"not estimated: {no_peak(config)}"
    text = f"about {short(guess.hours)} hours, predicted: {guess.how}"
    if config.cluster.executor != "slurm":
        return text
    limit = config.cluster.time or "the partition's default time"
    return f"{text}; the job asks for {limit} and requeues itself until it is done"


def budget(guess: Length, config: PretrainConfig) -> float | None:
    """Budget units of a run in the site's units; None where no rate or no hours are known."""
    rate = per_hour(config.cluster, config.world_size)
    return None if rate is None or guess.hours is None else guess.hours * rate


def _energy(guess: Length, config: PretrainConfig) -> str:
    if guess.hours is None:
        return "not estimated, since the hours are not"
    found = footprint.planned(config.cluster, config.world_size, guess.hours)
    return f"about {short(found.kwh)} kWh, {short(found.co2_kg)} kg CO2, {found.basis}"


def hours_words(guess: Length, config: PretrainConfig) -> str:
    """A run's predicted hours, for a cell of a table."""
    return "unknown" if guess.hours is None else f"{guess.hours:,.2f} h"


def budget_words(guess: Length, config: PretrainConfig) -> str:
    """A run's predicted cost, for a cell of a table."""
    units = budget(guess, config)
    return "unknown" if units is None else f"{units:,.1f} {config.cluster.site.budget_unit}"


def _budget(guess: Length, config: PretrainConfig) -> str:
    if guess.hours is None:
        return "not estimated, since the hours are not"
    units = budget(guess, config)
    if units is None:
        return f"not estimated: cluster={config.cluster.name} names no rate"
    amount = short(units) if units < 10 else f"{units:,.0f}"
    return f"about {amount} {config.cluster.site.budget_unit}, on the same prediction"
