"""Who am I among the ranks: what a task knows of its world before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["done", "requeue", "cancelled"]


@dataclass(frozen=True)
class World:
    """One rank's place in a job.

    Attributes:
        rank: global rank, 0 … world_size-1.
        world_size: ranks of the whole job.
        local_rank: rank on this node; the GPU index.
        node_rank: index of this node, 0 … nodes-1.
        nodes: nodes of the job.
        job_id: the scheduler's id, or the controller's pid for a local run.
        restart: how often this job id was started before (SLURM_RESTART_COUNT).
        hostname: an address other ranks can reach this node under.
        rendezvous: folder, shared by all ranks, in which rank 0 publishes its address and port.
        addresses: other addresses of this node, which ranks may try after `hostname`.
    """

    rank: int
    world_size: int
    local_rank: int
    node_rank: int
    nodes: int
    job_id: str
    restart: int
    hostname: str
    rendezvous: Path
    addresses: tuple[str, ...] = ()

    @classmethod
    def single(cls, folder: Path) -> World:
        """A world of one rank in this process, for tools that run without a launcher."""
        return cls(0, 1, 0, 0, 1, "none", 0, "127.0.0.1", folder)
