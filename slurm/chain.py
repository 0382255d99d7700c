"""A chain of stages: run here one after another, each skipped when its output is there and valid."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elm_megatron.run_folder import RunFolder
from slurm.submit import Job, submit


@dataclass
class Stage:
    """One link.

    Attributes:
        verb: names it.
        config: its checked config, with `run` and `cluster`.
        ranks: of its job.
        make: gives the job and the sha256 of the dataset it reads (or None), or raises InputError;
            called when the stage before has ended.
        output: the path of what it makes; a stage that leaves its file `proof` as it was has reused it.
        source: for people.
        proof: a file that is written anew whenever the output changes.
        finished: whether its output is there and valid; a job that finds that out itself leaves it unset.
        resumes: see `slurm.submit.submit`.
    """

    verb: str
    config: Any
    ranks: int
    make: Callable[[], tuple[Job, str | None]]
    source: str
    output: str
    proof: Path
    finished: Callable[[], bool] = lambda: False
    resumes: bool = True

    def stamp(self) -> int | None:
        """When the output was made (ns since the epoch), None when it is not there."""
        return self.proof.stat().st_mtime_ns if self.proof.exists() else None


@dataclass
class Row:
    """What became of a stage: `seconds` it took, or that it was `reused`."""

    stage: Stage
    seconds: float
    reused: bool


def run_here(stages: list[Stage]) -> tuple[int, list[Row]]:
    """Run the stages one after another on this machine.

    Returns:
        0 and a row per stage, or the exit status of the stage that failed and the rows up to it.
    """
    rows = []
    for number, stage in enumerate(stages, 1):
        began = time.monotonic()
        print(f"\n[{number}/{len(stages)}] {stage.verb}: {stage.source} → {stage.output}", flush=True)
        before = stage.stamp()
        if stage.finished():
            print("there already, and valid", flush=True)
        else:
            job, manifest = stage.make()
            status = submit(job, stage.config, stage.ranks, stage.verb, manifest, stage.resumes)
            if status:
                return status, rows
        rows.append(Row(stage, time.monotonic() - began, before is not None and before == stage.stamp()))
    return 0, rows


def done_since(run: RunFolder, *sources: RunFolder) -> bool:
    """Whether a run ended well after the runs it was made from had saved last."""
    record = run.read()
    if record.get("state") != "done":
        return False
    began = record.get("submitted", 0.0)
    return all(not source.latest.exists() or source.latest.stat().st_mtime < began for source in sources)
