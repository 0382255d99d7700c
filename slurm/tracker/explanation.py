"""What an explanation is made of, and the evidence that several families share."""

from dataclasses import dataclass, field

from slurm.tracker.nodes import Node
from slurm.tracker.poll import Picture
from slurm.tracker.squeue import Job


@dataclass
class Explanation:
    """A plain sentence, what it rests on, and what to do."""

    sentence: str
    evidence: list[str] = field(default_factory=list)
    advice: str = ""


def nodes_of(job: Job, picture: Picture) -> list[Node]:
    """The nodes of the job's partitions."""
    wanted = set(job.partition.split(","))
    return [node for node in picture.nodes if wanted.intersection(node.partitions)]


def occupants(job: Job, picture: Picture) -> list[Job]:
    """Jobs that run on the nodes of the job's partitions, whatever their own partition is."""
    wanted = {name for node in nodes_of(job, picture) for name in node.partitions}
    return [o for o in picture.jobs if o.running and wanted.intersection(o.partition.split(","))]


def shares_partition(one: Job, other: Job) -> bool:
    return bool(set(one.partition.split(",")).intersection(other.partition.split(",")))


def request(job: Job) -> str:
    """What a job asks for, in words."""
    parts = [f"{job.nodes} node{'s' if job.nodes != 1 else ''}", f"{job.cpus} cores"]
    if job.gpus:
        parts.append(f"{job.gpus} GPUs")
    if job.memory_mib:
        parts.append(f"{job.memory_mib} MiB")
    return ", ".join(parts) + (f" on {job.wanted_nodes}" if job.wanted_nodes else "")
