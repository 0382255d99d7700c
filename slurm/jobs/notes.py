"""Sentences about a submission that is allowed but probably a mistake."""

from __future__ import annotations

from pathlib import Path

from conf.durations import seconds
from conf.schema.cluster import ClusterConfig

EARLY_SECONDS = 60  # "Slurm may send the signal up to 60 seconds earlier than specified", sbatch(1)
START_SECONDS = 120  # a few ranks are at their first step by then


def notes(cluster: ClusterConfig, run: Path) -> list[str]:
    """What is allowed but probably a mistake: shown by a dry run, and when the job is handed in.

    Args:
        cluster: as the verb needs it.
        run: absolute run folder.
    """
    found = []
    ranks, gpus = cluster.tasks_per_node, cluster.gpus_per_node
    if cluster.device == "gpu" and ranks and ranks < gpus:
        found.append(
            f"cluster.tasks_per_node={ranks} leaves {gpus - ranks} of the {gpus} GPUs of each node idle"
        )
    if cluster.time:
        left = seconds(cluster.time) - cluster.signal_seconds - EARLY_SECONDS
        if left < START_SECONDS:
            found.append(
                f"cluster.time={cluster.time} may leave {max(0, left)} s for the start: the signal to save "
                f"comes {cluster.signal_seconds} s (cluster.signal_seconds) before the limit, and up to a "
                "minute earlier; a job without a step by then starts again, and is held when that repeats"
            )
    site = cluster.site
    if site.scratch and run.is_relative_to(site.scratch):
        found.append(
            f"{run} lies on {site.scratch}, which forgets files after {site.scratch_days} days: "
            "export the finished model elsewhere, and its last checkpoint too if it is to go on"
        )
    return found
