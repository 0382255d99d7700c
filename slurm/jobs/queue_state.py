"""Whether a job that a run folder names is still Slurm's."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from conf.errors import InputError
from slurm.jobs.environment import asking

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
    return str(record["job_ids"][-1]) if _reasons(record) else None


def is_held(record: dict[str, Any]) -> bool:
    """Whether the run's last job was held by itself, and no person has released it since.

    Slurm says "job requeued in held state" then, or JobHeldUser; run.json says held until the next attempt.

    Raises:
        InputError: Slurm cannot be asked.
    """
    return record.get("state") == "held" and any("held" in reason.lower() for reason in _reasons(record))


def _reasons(record: dict[str, Any]) -> list[str]:
    """Slurm's word on why the run's last job waits, "None" where it does not; empty when it is over."""
    job_ids = record.get("job_ids") or []
    if record.get("executor") != "slurm" or not job_ids:
        return []
    job_id = str(job_ids[-1])
    env = _environment(record)
    command = ["squeue", "--noheader", "--jobs", job_id, "--states", "all", "--format", "%T %r"]
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, encoding="utf-8", errors="replace", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"cannot ask Slurm whether job {job_id} of this run still lives: {error}."
        ) from error
    if done.returncode != 0:
        if "Invalid job id" in done.stderr:
            return []
        reason = " ".join(done.stderr.split())
        raise InputError(f"cannot ask Slurm whether job {job_id} of this run still lives: {reason}.")
    shown = [line.strip().partition(" ") for line in done.stdout.splitlines() if line.strip()]
    return [reason for state, _, reason in shown if state not in OVER]


def cancel(record: dict[str, Any]) -> bool:
    """Take the run's last job out of the queue; returns whether Slurm did."""
    command = ["scancel", str(record["job_ids"][-1])]
    try:
        return subprocess.run(command, env=_environment(record), timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired, InputError):
        return False


def _environment(record: dict[str, Any]) -> dict[str, str]:
    """This process's environment, pointed at the Slurm that has the run's jobs."""
    if record.get("slurm_conf"):
        check_conf(record["slurm_conf"])
    return asking(record.get("slurm_conf"))
