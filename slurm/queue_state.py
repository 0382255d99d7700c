"""Whether a job that a run folder names is still Slurm's."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from data_prep.errors import InputError
from slurm.environment import scrubbed


def live_job(record: dict[str, Any]) -> str | None:
    """The id of the run's last job, when Slurm still has it queued, running or ending.

    Args:
        record: run.json.

    Raises:
        InputError: Slurm cannot be asked, so that starting might make two writers.
    """
    job_ids = record.get("job_ids") or []
    if record.get("executor") != "slurm" or not job_ids:
        return None
    job_id = str(job_ids[-1])
    env = scrubbed(os.environ)
    if record.get("slurm_conf"):
        env["SLURM_CONF"] = record["slurm_conf"]
    command = ["squeue", "--noheader", "--jobs", job_id, "--states", "all", "--format", "%T"]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"cannot ask Slurm whether job {job_id} of this run still lives: {error}."
        ) from error
    if done.returncode != 0:
        if "Invalid job id" in done.stderr:
            return None
        reason = " ".join(done.stderr.split())
        raise InputError(f"cannot ask Slurm whether job {job_id} of this run still lives: {reason}.")
    over = (
        "COMPLETED",
        "CANCELLED",
        "FAILED",
        "TIMEOUT",
        "BOOT_FAIL",
        "DEADLINE",
        "OUT_OF_MEMORY",
        "NODE_FAIL",
    )
    states = [state for state in done.stdout.split() if state not in over]
    return job_id if states else None
