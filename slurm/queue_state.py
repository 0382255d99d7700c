"""Whether a job that a run folder names is still Slurm's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from slurm.environment import scrubbed

OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY", "NODE_FAIL")
OVER += ("PREEMPTED", "REVOKED")  # a preempted job that is requeued is pending again


def check_conf(path: str) -> None:
    """Refuse a slurm.conf that is not there, for which Slurm's commands would wait a minute.

    Raises:
        InputError: naming it.
    """
    if not Path(path).is_file():
        raise InputError(
            f"cluster.slurm_conf={path}: there is no such file; a dev cluster is started by: "
            "python -m slurm.devcluster up."
        )


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
    env = _environment(record)
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
    states = [state for state in done.stdout.split() if state not in OVER]
    return job_id if states else None


def cancel(record: dict[str, Any]) -> bool:
    """Take the run's last job out of the queue; returns whether Slurm did."""
    command = ["scancel", str(record["job_ids"][-1])]
    try:
        return subprocess.run(command, env=_environment(record), timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired, InputError):
        return False


def _environment(record: dict[str, Any]) -> dict[str, str]:
    """This process's environment, pointed at the Slurm that has the run's jobs."""
    env = scrubbed(os.environ)
    if record.get("slurm_conf"):
        check_conf(record["slurm_conf"])
        env["SLURM_CONF"] = record["slurm_conf"]
    return env
