"""What an hour of a job costs: what its batch script asks for, by the rule of `slurm.tracker.rates`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from conf.schema.cluster import ClusterConfig
from slurm.jobs import batch
from slurm.tracker.fields import mebibytes
from slurm.tracker.rates import core_rate, node_rate


def per_hour(cluster: ClusterConfig, ranks: int) -> float | None:
    """Budget units for an hour of a job.

    Args:
        cluster: where it runs, and what it asks for there.
        ranks: tasks of the whole job.

    Returns:
        None where the site names no rate for what is asked: only `cpu_partition` has that of cores where GPUs
        have one, and how large its whole nodes are is not known.

    Raises:
        InputError: the ranks do not spread evenly over the nodes.
    """
    site = asdict(cluster.site)
    on_cpu_nodes = cluster.cpu_partition is not None and cluster.partition == cluster.cpu_partition
    rate = core_rate(site) if on_cpu_nodes else node_rate(site)
    if rate is None or (on_cpu_nodes and cluster.exclusive):
        return None
    if cluster.site.gpu_hour_rate and not (on_cpu_nodes or cluster.gpus_per_node or cluster.exclusive):
        return None
    if cluster.exclusive:
        return rate.node_hour * cluster.nodes
    asked = batch.parameters(cluster, Path("/"), "price", ranks, mpi=False)
    cores = ranks * (asked["cpus_per_task"] or 1)  # Slurm's own default
    memory = mebibytes(asked["additional_parameters"].get("mem", "")) or 0
    return rate.per_hour(cluster.nodes * cluster.gpus_per_node, cores, cluster.nodes * memory)
