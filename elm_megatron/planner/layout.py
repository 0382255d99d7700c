"""What a run's GPUs can hold, and the choices that follow: `parallel=auto`, `train.micro_batch_size=auto`.

    settle(config, print)

puts the planner's numbers in the place of `auto` and says why. A run that was begun keeps its numbers.

Cutting costs communication, so a model that fits is not cut. Tensor parallelism goes first and stays within a
node, where links are fast; pipeline stages come after. Torch-free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from conf.errors import InputError
from conf.schema.parallel import ParallelConfig
from conf.schema.pretrain import PretrainConfig
from conf.schema.train import AUTO
from conf.schema.tune import FinetuneConfig
from elm_megatron.planner import memory
from elm_megatron.planner.inputs import device_of, layout_of, loop_key, loop_of, shape_of, with_loop
from elm_megatron.planner.overhead import beside
from elm_megatron.planner.performance import step_time
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import run_config

GIB = 2**30
USABLE = 0.85  # of a GPU's memory; the allocator leaves gaps, and `overhead.py` has more of the rest
MOST_SEQUENCES = 64  # of a micro-batch: larger ones are no faster
ON_A_CPU = 4  # sequences that keep a CPU's cores busy
SAME = 1.005  # a longer step than this is slower
Trained = PretrainConfig | FinetuneConfig


@dataclass(frozen=True)
class Choice:
    """A micro-batch that was looked at.

    Attributes:
        size: its sequences.
        bytes: of the fullest rank.
        seconds: predicted for a step; None where no time is predicted.
        fits: a GPU's usable memory.
    """

    size: int
    bytes: int
    seconds: float | None
    fits: bool


def rank_bytes(config: Trained, parallel: ParallelConfig) -> int:
    """Bytes of the rank that holds most in a layout, from shapes alone."""
    return sum(memory.rank_parts(replace(config, parallel=parallel)).values())


def capacity(config: Trained) -> float | None:
    """Bytes of a GPU that a rank may fill; None where the cluster names no GPU memory."""
    total = (config.cluster.site.gpu_memory_gb or 0) * GIB
    if config.cluster.device == "cpu" or not total:
        return None
    return min(total * USABLE, total - sum(beside(config).values()))


def candidates(config: Trained) -> Iterator[ParallelConfig]:
    """Layouts the model and the world allow, the least cut first."""
    world, ranks_per_node = config.world_size, config.world_size // config.cluster.nodes
    allowed = []
    for tp in range(1, ranks_per_node + 1):
        for pp in range(1, config.model.num_layers + 1):
            layout = replace(config.parallel, tp=tp, pp=pp, sp=tp > 1)  # cp and vpp stay as asked for
            if world % layout.model_ranks == 0 and _is_possible(replace(config, parallel=layout)):
                allowed.append(layout)
    yield from sorted(allowed, key=lambda layout: (layout.model_ranks, layout.pp))


def choose(config: Trained) -> tuple[ParallelConfig, str]:
    """The layout for a run, and one sentence why.

    Raises:
        InputError: no layout fits the memory of the cluster's GPUs.
    """
    usable = capacity(config)
    if usable is None:
        return replace(config.parallel, tp=1, pp=1), "tp=1 pp=1: the cluster names no GPU memory to fit into"
    smallest = None
    for layout in candidates(config):
        needed = rank_bytes(config, layout)
        if needed <= usable:
            dp = config.world_size // layout.model_ranks
            return layout, (
                f"tp={layout.tp} pp={layout.pp} dp={dp}: the least cut that fits, {needed / GIB:.1f} of "
                f"{usable / GIB:.1f} usable GiB a GPU"
            )
        smallest = min(needed, smallest or needed)
    group = loop_key(config)
    raise InputError(
        f"parallel=auto: no layout fits {usable / GIB:.1f} usable GiB a GPU on {config.world_size} "
        f"ranks, the least {(smallest or 0) / GIB:.1f}. Lower {group}.micro_batch_size, set "
        f"{group}.recompute=full, or ask for more GPUs."
    )


def micro_batches(config: Trained) -> list[Choice]:
    """Every micro-batch that a run's batch and layout allow, the smallest first."""
    usable, share = capacity(config), loop_of(config).global_batch_size // max(1, config.dp)
    found = []
    for size in range(1, min(share, MOST_SEQUENCES) + 1):
        trial = with_loop(config, micro_batch_size=size)
        if _is_possible(trial):
            held = sum(memory.rank_parts(trial).values())
            found.append(Choice(size, held, _seconds(trial), usable is None or held <= usable))
    return found


def choose_micro_batch(config: Trained) -> tuple[int, str]:
    """The micro-batch for a run, and one sentence why.

    Of those that fit it is the one with the shortest predicted step, where two are as fast the smaller one.
    Where no time is predicted it is the largest.

    Raises:
        InputError: none fits, or none divides the batch.
    """
    group, usable = loop_key(config), capacity(config)
    looked_at = micro_batches(config)
    fitting = [one for one in looked_at if one.fits]
    if usable is None:
        fitting = [one for one in fitting if one.size <= ON_A_CPU]
    if not fitting:
        least = f"one sequence needs {looked_at[0].bytes / GIB:.1f} GiB" if looked_at else "none is possible"
        raise InputError(
            f"{group}.micro_batch_size=auto: no micro-batch divides {group}.global_batch_size="
            f"{loop_of(config).global_batch_size} over dp={config.dp} and fits a GPU, {least}. Raise "
            f"parallel.tp or parallel.pp, set {group}.recompute=full, or ask for more GPUs."
        )
    if usable is None:
        return fitting[-1].size, f"{fitting[-1].size}: the cluster names no GPU memory to fit into"
    timed = [one.seconds for one in fitting if one.seconds is not None]
    best = fitting[-1]
    if timed:
        best = next(one for one in fitting if (one.seconds or 0.0) <= SAME * min(timed))
    return best.size, _why(best, looked_at, usable)


def _why(best: Choice, looked_at: list[Choice], usable: float) -> str:
    text = f"{best.size}: {best.bytes / GIB:.1f} of {usable / GIB:.1f} usable GiB a GPU"
    if best.seconds is not None:
        others = [one for one in looked_at if one.fits and one.size != best.size]
        beside = [f"{one.size}: {one.seconds:.3g} s" for one in (others[:1] + others[1:][-1:])]
        compared = f", beside {', '.join(beside)}" if beside else ""
        text += f", the shortest predicted step of those that fit ({best.seconds:.3g} s{compared})"
    if large := next((one for one in looked_at if not one.fits), None):
        text += f"; {large.size} needs {large.bytes / GIB:.1f} GiB"
    return text


def settle(config: Trained, log: Callable[[str], Any]) -> None:
    """Put numbers in the place of `auto`, and refuse a job that does not fit its GPUs.

    A run that exists keeps the numbers of its config.yaml as long as they are possible and fit.

    Args:
        config: changed in place.
        log: is told each choice and its reason.

    Raises:
        InputError: nothing fits; with `force=true` or in a dry run a layout that was given is let pass.
    """
    group, auto_layout = loop_key(config), config.parallel.auto
    auto_batch = loop_of(config).micro_batch_size == AUTO
    if not (auto_layout or auto_batch):
        return _require_fits(config)
    if kept := _kept(config, auto_layout, auto_batch):
        config.parallel = kept.parallel
        loop_of(config).micro_batch_size = loop_of(kept).micro_batch_size
        log(f"auto: {_numbers(config)}, as {config.run.name} was begun")
        return None
    if auto_layout:
        trial = with_loop(config, micro_batch_size=1) if auto_batch else config
        config.parallel, why = choose(trial)
        log(f"parallel=auto: {why}")
    if auto_batch:
        loop_of(config).micro_batch_size, why = choose_micro_batch(config)
        log(f"{group}.micro_batch_size=auto: {why}")
    return None


def _require_fits(config: Trained) -> None:
    usable, parts = capacity(config), memory.rank_parts(config)
    needed = sum(parts.values())
    if usable is None or needed <= usable or config.force or config.dry_run:
        return
    largest = max(parts, key=parts.__getitem__)
    group = loop_key(config)
    raise InputError(
        f"{_numbers(config)}: a rank needs {needed / GIB:.1f} GiB by prediction ({parts[largest] / GIB:.1f} "
        f"of it {largest}), and {usable / GIB:.1f} of the {config.cluster.site.gpu_memory_gb:g} GiB of a GPU "
        f"are usable; lower {group}.micro_batch_size or give auto, set {group}.recompute=full, take "
        "parallel=auto, or give force=true to start it all the same."
    )


def _kept(config: Trained, layout: bool, batch: bool) -> Trained | None:
    """The config with the numbers of its run's config.yaml; None where there are none that serve."""
    run = RunFolder(config.run.dir)
    try:
        values = run_config(run) if run.config.exists() else {}
        cut, loop = values["parallel"], values[loop_key(config)]
        parallel = replace(config.parallel, tp=cut["tp"], pp=cut["pp"], sp=cut["sp"])
        size = loop["micro_batch_size"]
    except (InputError, KeyError, TypeError):
        return None
    trial = replace(config, parallel=parallel) if layout else config
    trial = with_loop(trial, micro_batch_size=size) if batch else trial
    usable = capacity(config)
    if size == AUTO or not _is_possible(trial):
        return None
    held = sum(memory.rank_parts(trial).values())
    return trial if usable is None or held <= usable else None


def _numbers(config: Trained) -> str:
    parallel, loop = config.parallel, loop_of(config)
    return f"tp={parallel.tp} pp={parallel.pp} {loop_key(config)}.micro_batch_size={loop.micro_batch_size}"


def _seconds(config: Trained) -> float | None:
    """Predicted seconds of a step of pretraining on GPUs that are known."""
    if not isinstance(config, PretrainConfig):
        return None
    try:
        sheet = device_of(config)
    except InputError:
        return None
    return step_time(shape_of(config.model), layout_of(config), sheet).total


def _is_possible(trial: Trained) -> bool:
    try:
        trial.check()
    except InputError:
        return False
    return True
