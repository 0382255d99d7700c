"""What an explanation is made of, and the evidence that several families share."""

from __future__ import annotations

from dataclasses import dataclass, field

from slurm.tracker.logs import log_path
from slurm.tracker.nodes import Node
from slurm.tracker.poll import Picture
from slurm.tracker.squeue import Job


@dataclass
class Explanation:
    """A plain sentence, the evidence for it, and what to do."""

    sentence: str
    evidence: list[str] = field(default_factory=list)
    advice: str = ""


@dataclass(frozen=True)
class Says:
    """An explanation that needs nothing but the job: texts with the job's fields in braces.

    Attributes:
        sentence: why the job waits.
        evidence: lines under it.
        advice: what to do.
    """

    sentence: str
    evidence: tuple[str, ...]
    advice: str

    def __call__(self, job: Job, picture: Picture) -> Explanation:
        """The explanation of one job."""
        words = _words_of(job)
        evidence = [line.format_map(words) for line in self.evidence]
        return Explanation(self.sentence.format_map(words), evidence, self.advice.format_map(words))


def _words_of(job: Job) -> dict[str, str]:
    """The fields that a `Says` may name."""
    return {
        "id": str(job.job_id),
        "user": job.user,
        "account": job.account or "unknown",
        "qos": job.qos or "unknown",
        "partition": job.partition,
        "reservation": job.reservation or "of unknown name",
        "priority": str(job.priority),
        "restarts": str(job.restarts),
        "reason": job.reason,
        "log": log_path(job) or "unknown",
        "request": request(job) + (f" with feature {job.features}" if job.features else ""),
    }


def nodes_of(job: Job, picture: Picture) -> list[Node]:
    """The nodes of the job's partitions."""
    wanted = set(job.partition.split(","))
    return [node for node in picture.nodes if wanted.intersection(node.partitions)]


def occupants(job: Job, picture: Picture) -> list[Job]:
    """Jobs that run on the nodes of the job's partitions, whatever their own partition is."""
    wanted = {name for node in nodes_of(job, picture) for name in node.partitions}
    return [o for o in picture.jobs if o.running and wanted.intersection(o.partition.split(","))]


def shares_partition(one: Job, other: Job) -> bool:
    """Whether two jobs may use the same partition."""
    return bool(set(one.partition.split(",")).intersection(other.partition.split(",")))


def request(job: Job) -> str:
    """What a job asks for, in words."""
    parts = [f"{job.nodes} node{'s' if job.nodes != 1 else ''}", f"{job.cpus} cores"]
    if job.gpus:
        parts.append(f"{job.gpus} GPUs")
    if job.memory_mib:
        parts.append(f"{job.memory_mib} MiB")
    return ", ".join(parts) + (f" on {job.wanted_nodes}" if job.wanted_nodes else "")
