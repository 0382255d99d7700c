"""What a partition of the live Slurm gives a job that asks for nothing."""

from __future__ import annotations

import re
import subprocess

from conf.durations import seconds
from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from slurm.jobs.environment import asking


def check_signal(cluster: ClusterConfig, clusters: str | None = None) -> None:
    """Refuse a save signal that would come before the job starts, where the partition sets the limit.

    Args:
        cluster: checked already; with a time of its own the settings have been compared.
        clusters: clusters that a person chose by name.

    Raises:
        InputError: naming the key and the limit.
    """
    if cluster.time is not None:
        return
    name, limit = time_limit(cluster, clusters)
    if limit and (seconds(limit) or cluster.signal_seconds + 1) <= cluster.signal_seconds:
        raise InputError(
            f"cluster.signal_seconds={cluster.signal_seconds}: must be shorter than the time limit, which is "
            f"that of partition {name}, {limit}, since no cluster.time is given."
        )


def time_limit(cluster: ClusterConfig, clusters: str | None = None) -> tuple[str, str | None]:
    """The partition of a job, and the limit of a job there that names none; None where Slurm does not say."""
    where = [f"--clusters={clusters}"] if clusters and "," not in clusters else []
    command = ["scontrol", *where, "--all", "-o", "show", "partition"]
    try:
        done = subprocess.run(
            command,
            env=asking(cluster.slurm_conf),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return cluster.partition or "", None
    for line in done.stdout.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S+)", line))
        chosen = cluster.partition.split(",")[0] if cluster.partition else None
        if fields.get("PartitionName") == chosen or (chosen is None and fields.get("Default") == "YES"):
            default = fields.get("DefaultTime", "NONE")
            limit = default if seconds(default) else fields.get("MaxTime", "")
            return fields.get("PartitionName", ""), limit if seconds(limit) else None
    return cluster.partition or "", None
