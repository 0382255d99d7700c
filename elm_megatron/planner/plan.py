"""Every layout of a run that fits, with its time, cost and footprint; and those that do not, with the reason.

    rows, rejected = plan(config, nodes=[1, 2, 4, 8], rate=price)

Torch-free: a login node answers in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from conf.durations import seconds
from conf.errors import InputError
from conf.schema.pretrain import PretrainConfig
from elm_megatron.planner import footprint, memory
from elm_megatron.planner.devices import Device
from elm_megatron.planner.inputs import device_of, layout_of, shape_of
from elm_megatron.planner.layout import USABLE, capacity
from elm_megatron.planner.length import steps_of
from elm_megatron.planner.performance import StepTime, mfu, step_time

GIB = 2**30
MICRO_BATCHES = (1, 2, 4, 8, 16, 32)
RECOMPUTE = ("none", "selective", "full")


@dataclass(frozen=True)
class Row:
    """One layout of one run.

    Attributes:
        config: the run's settings with this layout.
        memory: bytes of the fullest rank, by part.
        step: seconds of a step, by part.
        steps: updates of the whole run.
        mfu: model FLOPs over the sheets' peak.
        tokens_per_second: of the whole job.
        hours: wall hours of the run.
        jobs: chained jobs under the time limit; None without one.
        budget: in the site's units; None without a rate.
        footprint: energy and CO2.
    """

    config: PretrainConfig
    memory: dict[str, int]
    step: StepTime
    steps: int
    mfu: float
    tokens_per_second: float
    hours: float
    jobs: int | None
    budget: float | None
    footprint: footprint.Footprint

    @property
    def name(self) -> str:
        """The layout in one line; what is 1 or none is left out."""
        parallel, train = self.config.parallel, self.config.train
        nodes = self.config.cluster.nodes
        cuts = {"tp": parallel.tp, "pp": parallel.pp, "vpp": parallel.vpp, "cp": parallel.cp}
        words = [f"{nodes}×{self.config.world_size // nodes}"]
        words += [f"{name}={value}" for name, value in cuts.items() if value > 1]
        words += [f"dp={self.config.dp}", f"mb={train.micro_batch_size}"]
        return " ".join(words) + (f" {train.recompute} recompute" if train.recompute != "none" else "")


@dataclass(frozen=True)
class Rejected:
    """A layout that does not fit: its line, its bytes by part, and the part that is largest."""

    name: str
    memory: dict[str, int]

    @property
    def largest(self) -> str:
        """The part with most bytes."""
        return max(self.memory, key=self.memory.__getitem__)


def plan(
    config: PretrainConfig,
    nodes: Sequence[int],
    tokens: int,
    rate: Callable[[PretrainConfig], float | None],
    factor: float = 1.0,
) -> tuple[list[Row], list[Rejected]]:
    """All layouts of a run on so many nodes.

    Args:
        config: the run; its layout, micro-batch, recompute and nodes are varied.
        nodes: numbers of nodes to look at.
        tokens: of one epoch of the dataset.
        rate: budget units for an hour of such a job; None without a price.
        factor: measured over predicted seconds of a calibrated run.

    Returns:
        The rows that fit, the fastest first, and the others.

    Raises:
        InputError: no layout is possible, or the site names no GPU.
    """
    sheet = device_of(config)
    usable = capacity(config) or sheet.memory_gb * GIB * USABLE
    rows, rejected = [], []
    for trial in _trials(config, nodes):
        parts = memory.rank_parts(trial)
        row = predicted(trial, sheet, parts, tokens, rate, factor)
        if sum(parts.values()) <= usable:
            rows.append(row)
        else:
            rejected.append(Rejected(row.name, parts))
    if not rows and not rejected:
        per_node = config.world_size // config.cluster.nodes
        raise InputError(
            f"no layout of {config.model.name} is possible on {', '.join(map(str, nodes))} nodes of "
            f"cluster={config.cluster.name}, with {per_node} ranks on each; "
            f"train.global_batch_size={config.train.global_batch_size} must be a multiple of micro-batch × "
            "dp, and the cluster must give so many nodes."
        )
    rows.sort(key=lambda one: (one.hours, one.config.parallel.model_ranks, one.config.train.recompute))
    return rows, rejected


def predicted(
    config: PretrainConfig,
    sheet: Device,
    parts: dict[str, int],
    tokens: int,
    rate: Callable[[PretrainConfig], float | None],
    factor: float = 1.0,
) -> Row:
    """One row: time, cost and footprint of a run with the layout it has."""
    shape, layout = shape_of(config.model), layout_of(config)
    step = step_time(shape, layout, sheet).scaled(factor)
    train = config.train
    steps = steps_of(train, tokens)
    hours = steps * step.total / 3600
    price = rate(config)
    limit = seconds(config.cluster.time) / 3600 if config.cluster.time else None
    return Row(
        config=config,
        memory=parts,
        step=step,
        steps=steps,
        mfu=mfu(shape, layout, sheet, step.total),
        tokens_per_second=train.global_batch_size * train.seq_length / step.total,
        hours=hours,
        jobs=math.ceil(hours / limit) if limit else None,
        budget=None if price is None else price * hours,
        footprint=footprint.planned(config.cluster, layout.gpus, hours),
    )


def best_by_nodes(rows: Sequence[Row], each: int = 3) -> list[Row]:
    """The fastest rows of each number of nodes, the fewest nodes first."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row.config.cluster.nodes, []).append(row)
    return [row for nodes in sorted(found) for row in found[nodes][:each]]


def frontier(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other beats in both hours and budget (kWh without a price), the fastest first."""

    def cost(row: Row) -> float:
        return row.footprint.kwh if row.budget is None else row.budget

    best, found = math.inf, []
    for row in sorted(rows, key=lambda one: (one.hours, cost(one))):
        if cost(row) < best:
            best = cost(row)
            found.append(row)
    return found


def _trials(config: PretrainConfig, nodes: Sequence[int]) -> Iterator[PretrainConfig]:
    """The run with each layout that its checks allow."""
    for count in nodes:
        cluster = replace(config.cluster, nodes=count)
        if not _has_nodes(replace(config, cluster=cluster)):
            continue
        per_node = replace(config, cluster=cluster).world_size // count
        for tp in _divisors(per_node):
            for pp in _divisors(config.model.num_layers):
                for vpp in (1, 2) if pp > 1 else (1,):
                    parallel = replace(config.parallel, tp=tp, pp=pp, vpp=vpp, sp=tp > 1, auto=False)
                    for micro_batch in MICRO_BATCHES:
                        for recompute in RECOMPUTE:
                            train = replace(config.train, micro_batch_size=micro_batch, recompute=recompute)
                            trial = replace(config, cluster=cluster, parallel=parallel, train=train)
                            if _is_possible(trial):
                                yield trial


def _has_nodes(trial: PretrainConfig) -> bool:
    """Whether the cluster gives so many nodes, and the settings can be, whatever the layout."""
    try:
        trial.cluster.check()
        trial.cluster.check_gpus()
        trial.model.check()
        trial.data.check()
    except InputError:
        return False
    return True


def _is_possible(trial: PretrainConfig) -> bool:
    try:
        trial.check_layout()
    except InputError:
        return False
    return True


def _divisors(number: int) -> list[int]:
    return [one for one in range(1, number + 1) if number % one == 0]
