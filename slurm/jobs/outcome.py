"""What the batch script writes into run.json when the ranks are gone.

    python -m slurm.jobs.outcome RUN JOB RESTART STATE REASON [--successor JOB] [--not-started]

The batch script alone knows whether Slurm starts the job again, so it tells so after the fact (`end.sh`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from elm_megatron.run.folder import ATTEMPTS, OWNER, STATES, RunFolder


def write(
    folder: Path,
    job: str,
    restart: int,
    state: str,
    reason: str,
    successor: str | None = None,
    not_started: bool = False,
) -> bool:
    """Write how an attempt went on; returns False when another attempt owns the run by now.

    Args:
        folder: the run's.
        job: Slurm's id.
        restart: how often it was started before.
        state: for run.json.
        reason: for run.json.
        successor: the job that goes on in its place.
        not_started: the ranks could not be started, which says nothing of the run's progress.
    """
    record = RunFolder(folder).read()
    owner, known = record.get(OWNER), [str(one) for one in record.get("job_ids", [])]
    if owner and _is_newer(owner, job, restart, known):
        return False
    if state == "cancelled" and record.get("state") in ("done", "failed", "cancelled"):
        return False  # why it ended is known better
    attempts: list[dict[str, Any]] = record.get(ATTEMPTS, [])
    if not_started and attempts and (attempts[-1]["job"], attempts[-1]["restart"]) == (job, restart):
        attempts[-1]["not_started"] = True
    more: dict[str, Any] = {ATTEMPTS: attempts} if attempts else {}
    if successor:
        more["job_ids"] = [*known, successor]
        more["successors"] = record.get("successors", {}) | {successor: job}
    RunFolder(folder, owner).update(state=state, reason=reason, **more)
    return True


def _is_newer(owner: list[Any], job: str, restart: int, known: list[str]) -> bool:
    if str(owner[0]) == job:
        return int(owner[1]) > restart
    if job not in known or str(owner[0]) not in known:
        return False
    return known.index(str(owner[0])) > known.index(job)


def main() -> int:
    """Read the command line of the batch script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("job")
    parser.add_argument("restart", type=int)
    parser.add_argument("state", choices=STATES)
    parser.add_argument("reason")
    parser.add_argument("--successor")
    parser.add_argument("--not-started", action="store_true")
    given = parser.parse_args()
    write(given.run, given.job, given.restart, given.state, given.reason, given.successor, given.not_started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
