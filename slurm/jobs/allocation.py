"""cluster=allocation: one srun inside an existing allocation (`salloc`), watched like a local world.

Ctrl-C reaches srun as SIGTERM, which srun hands to its tasks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from conf.errors import InputError

GRACE_SECONDS = 30.0  # srun hands signals on and waits for its tasks


def job_id(env: Mapping[str, str]) -> str:
    """The allocation this shell is in.

    Raises:
        InputError: it is in none.
    """
    found = env.get("SLURM_JOB_ID")
    if not found:
        raise InputError("cluster=allocation: this shell is in no allocation; start one with salloc first.")
    return found


def check(env: Mapping[str, str], nodes: int) -> None:
    """Check that this shell's allocation is there and large enough.

    Raises:
        InputError: it is not.
    """
    job_id(env)
    available = int(env.get("SLURM_JOB_NUM_NODES", 1))
    if nodes > available:
        raise InputError(f"cluster.nodes={nodes}: this allocation has {available} nodes.")


def cores_of_rank(env: Mapping[str, str], ranks_per_node: int) -> int:
    """A rank's share of the cores that this shell's allocation has on its smallest node.

    srun alone would give each rank one core, whatever was allocated.

    Args:
        env: has SLURM_JOB_CPUS_PER_NODE, as "72(x2),36".
        ranks_per_node: ranks that share a node.
    """
    counts = re.findall(r"(?:^|,)(\d+)", env.get("SLURM_JOB_CPUS_PER_NODE", ""))
    return max(1, min(map(int, counts), default=1) // ranks_per_node)


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """srun's environment: the allocation's own variables, and a mark for the ranks."""
    # Set by salloc for its own shell; srun would take them for options of this step.
    dropped = (
        "SLURM_NTASKS",
        "SLURM_NPROCS",
        "SLURM_NTASKS_PER_NODE",
        "SLURM_TASKS_PER_NODE",
        "SLURM_NNODES",
        "SLURM_CPUS_PER_TASK",
        "SLURM_TRES_PER_TASK",
    )
    kept = {name: value for name, value in env.items() if name not in dropped}
    return kept | {"SUBMITIT_EXECUTOR": "slurm", "ELM_ALLOCATION": "1", "PYTHONUNBUFFERED": "1"}
