"""What a few steps spend their time on: torch's profiler, and one page that sums it up.

    python launch/pretrain.py … 'train.profile={steps: [10,12]}'

writes into <run>/profile/: per rank a trace of steps 10 to 12 (chrome://tracing or ui.perfetto.dev open it)
and `summary.md`. Where a GPU runs out of memory, a snapshot of its memory is written there as well
(pytorch.org/memory_viz opens it), with the stacks of the allocations where `train.profile` is set.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from conf.schema.train import TrainConfig
from elm_megatron.engine.distributed import gathered
from elm_megatron.model import device as devices
from elm_megatron.run.world import World

FOLDER = "profile"
TOP = 15
COMMUNICATION = re.compile(
    r"nccl|gloo|c10d|all_?reduce|all_?gather|reduce_?scatter|broadcast|barrier|send|recv"
)

Interval = tuple[float, float]


class Profiler:
    """Profiles one rank, in the steps that the settings name.

    Args:
        train: has `profile`, None for nothing to do.
        run: the run's folder.
        world: this rank's place.
        device: this rank's device.
    """

    def __init__(self, train: TrainConfig, run: Path, world: World, device: torch.device):
        self._folder, self._world, self._device = run / FOLDER, world, device
        self._first, self._last = train.profile.steps if train.profile else (0, -1)
        self._profile: Any = None
        self._began = 0.0
        if train.profile:
            devices.record_memory(device)

    @contextlib.contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Profile update number `step`, if it is one of those; every rank calls it."""
        if self._profile is None and self._first <= step <= self._last:
            self._start()
        yield
        if self._profile is not None and step >= self._last:
            self._finish(step)

    def stop(self, step: int) -> None:
        """Finish when a run ends between the steps that it was to profile; every rank calls it."""
        if self._profile is not None:
            self._finish(step)

    def out_of_memory(self) -> Path | None:
        """Write a snapshot of the GPU's memory; None on a CPU, and where it cannot be written."""
        if not devices.is_gpu(self._device):
            return None
        path = self._folder / f"memory-rank-{self._world.rank:05d}.pickle"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            devices.dump_memory(path)
        except (OSError, RuntimeError):  # the error that is told is the lack of memory
            return None
        return path

    def _start(self) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if devices.is_gpu(self._device):
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profile = torch.profiler.profile(activities=activities, profile_memory=True)
        devices.synchronize(self._device)
        self._began = time.perf_counter()
        self._profile.__enter__()

    def _finish(self, step: int) -> None:
        devices.synchronize(self._device)
        seconds = time.perf_counter() - self._began
        profile, self._profile = self._profile, None
        profile.__exit__(None, None, None)
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"steps-{self._first}-{step}-rank-{self._world.rank:05d}.json.gz"
        profile.export_chrome_trace(str(self._folder / name))
        figures = _figures(profile, seconds, self._device)
        every = gathered(figures)
        if self._world.rank == 0:
            page = summary(every, _top(profile, self._device), self._first, step)
            (self._folder / "summary.md").write_text(page, encoding="utf-8")
            print(f"profile of steps {self._first} to {step}: {self._folder}", flush=True)


def _figures(profile: Any, seconds: float, device: torch.device) -> dict[str, float]:
    """Seconds of this rank: in all, at work, in communication, idle."""
    on_device = devices.is_gpu(device)
    events = [event for event in profile.events() if (event.device_type.name == "CUDA") == on_device]
    spans = [(event.time_range.start, event.time_range.end) for event in events]
    talk = [
        (event.time_range.start, event.time_range.end)
        for event in events
        if COMMUNICATION.search(event.name.lower())
    ]
    busy = covered(spans) / 1e6
    return {
        "seconds": seconds,
        "busy": busy,
        "communication": covered(talk) / 1e6,
        "idle": max(0.0, seconds - busy),
    }


def covered(intervals: list[Interval]) -> float:
    """Length of the union of intervals (start, end)."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _top(profile: Any, device: torch.device) -> list[tuple[str, int, float]]:
    """(operation, calls, seconds of its own) of those that took the most."""
    key = "self_device_time_total" if devices.is_gpu(device) else "self_cpu_time_total"
    averages = sorted(profile.key_averages(), key=lambda one: -getattr(one, key))
    return [(one.key, one.count, getattr(one, key) / 1e6) for one in averages[:TOP]]


def summary(ranks: list[dict[str, float]], top: list[tuple[str, int, float]], first: int, last: int) -> str:
    """The page: who waits for whom, and what takes the time.

    Args:
        ranks: the figures of every rank, in rank order.
        top: the operations of rank 0 that took the most.
    """
    lines = [f"# Steps {first} to {last}", "", "| rank | seconds | at work | communication | gaps |"]
    lines += ["|---|---|---|---|---|"]
    for rank, one in enumerate(ranks):
        shares = " | ".join(f"{one[key] / one['seconds']:.1%}" for key in ("busy", "communication", "idle"))
        lines.append(f"| {rank} | {one['seconds']:.3f} | {shares} |")
    lines += ["", "At work: a kernel or an operation ran. Communication is a part of it. Gaps: nothing ran."]
    lines += ["", "| operation of rank 0 | calls | seconds of its own | share |", "|---|---|---|---|"]
    total = ranks[0]["seconds"]
    lines += [f"| `{name}` | {calls} | {own:.4f} | {own / total:.1%} |" for name, calls, own in top]
    return "\n".join(lines) + "\n"
