"""Hours and energy of a job that keeps no costs of its own: preparing, exporting, measuring.

Training keeps its own (elm_megatron/engine/costs.py). An attempt that was killed is not counted here.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from elm_megatron.planner import footprint
from elm_megatron.run.folder import RunFolder, Superseded
from elm_megatron.run.world import World

FIELD = "job_seconds"  # of run.json: wall time of all attempts
OWN = "attempt_costs"  # of run.json: the job counts itself


@contextlib.contextmanager
def counted(folder: Path, world: World, cluster: ClusterConfig) -> Iterator[None]:
    """Add the wall time of what is done inside to run.json, with the footprint of all attempts.

    Args:
        folder: the run's.
        world: of this rank; rank 0 counts for all.
        cluster: where it runs.
    """
    began = time.time()
    try:
        yield
    finally:
        if world.rank == 0:
            run = RunFolder(folder, [world.job_id, world.restart])
            with contextlib.suppress(OSError, InputError, Superseded):
                _add(run, cluster, world.world_size, time.time() - began)


def _add(run: RunFolder, cluster: ClusterConfig, ranks: int, seconds: float) -> None:
    record = run.read()
    if not record or OWN in record:
        return
    whole = float(record.get(FIELD) or 0.0) + seconds
    cores = footprint.cores_of(cluster, ranks, os.cpu_count())
    taken = footprint.recorded(cluster, ranks, cores, whole)
    run.update(**{FIELD: whole, footprint.FIELD: asdict(taken)})
