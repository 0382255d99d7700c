"""Which jobs of a run Slurm has. A job is known by its cluster, its id, its submit time and our comment.

A bare number says little: ids come again, other clusters have the same ones, and sbatch may time out on a job
that was accepted. The comment `elm:<run folder>` names the run. Where a site drops comments, a job of the
right id and name that is no older than its record counts.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import InputError
from elm_megatron.run.folder import RunFolder
from slurm.jobs.environment import asking
from slurm.tracker.fields import epoch, word

OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY", "NODE_FAIL")
OVER += ("PREEMPTED", "REVOKED")  # a preempted job that is requeued is pending again
# Reasons with which a pending job waits for ever, since only another submission changes them.
NEVER = ("PartitionTimeLimit", "PartitionNodeLimit", "PartitionConfig", "BadConstraints", "InvalidQOS")
NEVER += ("InvalidAccount", "AccountNotAllowed", "QOSNotAllowed", "DependencyNeverSatisfied")
NEVER += ("AssocMaxCpuPerJobLimit", "AssocMaxNodePerJobLimit", "AssocMaxWallDurationPerJobLimit")
NEVER += ("QOSMaxCpuPerJobLimit", "QOSMaxNodePerJobLimit", "QOSMaxWallDurationPerJobLimit")
NEVER += ("QOSMaxGRESPerJob", "QOSMinCpuNotSatisfied", "QOSMinGRES", "QOSTimeLimit")
FORMAT = "%i|%T|%V|%r|%j|%k"
PREFIX = "elm:"  # of the comment
EARLIER_SECONDS = 300  # by which clocks of a login node and the controller may differ
OLD_SECONDS = 3600  # after which a run that ended by its own word is believed without Slurm


@dataclass(frozen=True)
class QueuedJob:
    """One job in Slurm's queue.

    Attributes:
        id: its number.
        cluster: Slurm's name of a cluster that was asked by name, otherwise None.
        state: Slurm's word.
        submitted: UTC epoch seconds, None where Slurm does not say.
        reason: why it waits, "None" where it does not.
        name, comment: as submitted.
    """

    id: str
    cluster: str | None
    state: str
    submitted: int | None
    reason: str
    name: str
    comment: str

    @property
    def never_starts(self) -> bool:
        """Whether it waits for what will not happen."""
        return self.state == "PENDING" and self.reason in NEVER


def comment_of(run: RunFolder) -> str:
    """The comment that every job of a run carries."""
    return f"{PREFIX}{run.path}"


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


def clusters_asked(env: Mapping[str, str]) -> str | None:
    """The clusters a person chose for Slurm's commands, by name; None is this machine's own."""
    return env.get("SBATCH_CLUSTERS") or env.get("SLURM_CLUSTERS") or None


def cluster_name(slurm_conf: str | None) -> str | None:
    """Slurm's name of the cluster that is asked when none is named; None when it does not say."""
    try:
        said = _run(["scontrol", "show", "config"], asking(slurm_conf)).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"^ClusterName\s*=\s*(\S+)", said, re.M)
    return found[1] if found else None


@dataclass(frozen=True)
class Place:
    """A Slurm that can be asked: its slurm.conf, and clusters by name; None is this machine's own."""

    slurm_conf: str | None = None
    clusters: str | None = None


def live_jobs(run: RunFolder, place: Place | None = None) -> list[QueuedJob]:
    """The run's jobs that Slurm still has queued, running or ending, oldest first.

    Args:
        run: its folder, which may not exist.
        place: where a job would go that is handed in now; None for one that does not go to Slurm. The place
            of the run's last job is in run.json.

    Raises:
        InputError: Slurm cannot be asked, so that starting might make two writers.
    """
    record = run.read()
    places = [] if place is None else [place]
    if record.get("executor") == "slurm" and record.get("job_ids"):
        conf, name = record.get("slurm_conf"), record.get("slurm_cluster")
        places.insert(0, Place(conf, None if name is None or name == cluster_name(conf) else str(name)))
    found: dict[tuple[str | None, str], QueuedJob] = {}
    for one in dict.fromkeys(places):
        for job in _queue(run, record, one):
            if job.state not in OVER and _is_ours(job, run, record):
                found[(job.cluster, job.id)] = job
    return sorted(found.values(), key=lambda job: int(job.id) if job.id.isdigit() else 0)


def live_job(run: RunFolder, place: Place | None = None) -> QueuedJob | None:
    """The newest of `live_jobs`; None when Slurm has none."""
    return next(reversed(live_jobs(run, place)), None)


def is_held(run: RunFolder) -> bool:
    """Whether the run's last job was held by itself, and no person has released it since.

    Slurm says "job requeued in held state" then, or JobHeldUser; run.json says held until the next attempt.

    Raises:
        InputError: Slurm cannot be asked.
    """
    return run.read().get("state") == "held" and any("held" in job.reason.lower() for job in live_jobs(run))


def cancel(run: RunFolder, job: QueuedJob | str | None = None) -> bool:
    """Take a job of a run, by default its last, out of the queue; returns whether Slurm did."""
    record = run.read()
    name = job.cluster if isinstance(job, QueuedJob) else record.get("slurm_cluster")
    number = job.id if isinstance(job, QueuedJob) else str(job or record["job_ids"][-1])
    where = [f"--clusters={name}"] if name and name != cluster_name(record.get("slurm_conf")) else []
    try:
        return _run(["scancel", *where, number], asking(record.get("slurm_conf"))).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _is_ours(job: QueuedJob, run: RunFolder, record: dict[str, Any]) -> bool:
    if job.comment.startswith(PREFIX):
        folder = job.comment.removeprefix(PREFIX)
        return folder == str(run.path) or Path(folder).resolve() == run.path.resolve()
    known = job.id in map(str, record.get("job_ids", []))
    young = job.submitted is None or job.submitted >= record.get("submitted", 0) - EARLIER_SECONDS
    return known and young and job.name == record.get("name")


def _queue(run: RunFolder, record: dict[str, Any], place: Place) -> list[QueuedJob]:
    """Every job of the run's owner on one Slurm, of any state.

    Raises:
        InputError: Slurm cannot be asked.
    """
    if place.slurm_conf:
        check_conf(place.slurm_conf)
    clusters = place.clusters
    owner = run.path.stat().st_uid if run.path.exists() else os.getuid()
    where = [f"--clusters={clusters}"] if clusters else []
    command = [
        "squeue",
        "--noheader",
        "--all",
        *where,
        "--user",
        str(owner),
        "--states",
        "all",
        "--format",
        FORMAT,
    ]
    try:
        done = _run(command, asking(place.slurm_conf))
        error = " ".join(done.stderr.split()) if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as problem:
        error = str(problem)
    if not error:
        return _parse(done.stdout)
    if clusters and _ended_long_ago(record):
        return []
    what = (
        f"job {record['job_ids'][-1]} of this run" if record.get("job_ids") else f"a job of {run.path.name}"
    )
    place = f" on cluster {clusters}" if clusters else ""
    raise InputError(f"cannot ask Slurm whether {what} still lives{place}: {error.rstrip('.')}.")


def _ended_long_ago(record: dict[str, Any]) -> bool:
    ended = record.get("state") in ("done", "failed", "cancelled")
    return ended and record.get("updated", 0.0) < time.time() - OLD_SECONDS


def _parse(text: str) -> list[QueuedJob]:
    """squeue's lines; with several clusters a line `CLUSTER: name` comes before those of each."""
    cluster, found = None, []
    for line in text.splitlines():
        if line.startswith("CLUSTER: "):
            cluster = line.removeprefix("CLUSTER: ").strip()
            continue
        parts = line.strip().split("|", 5)
        if len(parts) == 6:
            number, state, submitted, reason, name, comment = parts
            found.append(QueuedJob(number, cluster, state, epoch(submitted), reason, name, word(comment)))
    return found


def _run(command: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=env, capture_output=True, encoding="utf-8", errors="replace", timeout=60, check=False
    )
