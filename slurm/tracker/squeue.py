"""The queue as `squeue -O` writes it: which fields are asked for, and one `Job` per line of it."""

from dataclasses import dataclass

from slurm.tracker.command import records
from slurm.tracker.fields import (
    array_tasks,
    epoch,
    gpus_of_gres,
    gpus_of_tres,
    mebibytes,
    number,
    seconds,
    word,
)
from slurm.tracker.fields import tres as tres_of

# Names of `squeue -O`, the same in 22.05, 23.11 and 24.05.
FIELDS = (
    "JobID",
    "JobArrayID",
    "ArrayJobID",
    "ArrayTaskID",
    "UserName",
    "Account",
    "Partition",
    "QOS",
    "State",
    "Reason",
    "Dependency",
    "SubmitTime",
    "EligibleTime",
    "StartTime",
    "EndTime",
    "TimeLimit",
    "TimeUsed",
    "NumNodes",
    "NumCPUs",
    "tres-alloc",
    "tres-per-node",
    "PriorityLong",
    "RestartCnt",
    "NodeList",
    "ReqNodes",
    "Reservation",
    "Feature",
    "Licenses",
    "STDOUT",
    "Comment",
    "Name",
)


@dataclass(slots=True)
class Job:
    """One line of the queue: a job, a started array task, or all waiting tasks of an array together.

    Times are UTC epoch seconds, spans are seconds; None is "not known".
    """

    job_id: int
    shown_id: str
    array_id: int | None
    tasks: int
    name: str
    user: str
    account: str
    partition: str
    qos: str
    state: str
    reason: str
    dependency: str
    submit: int | None
    eligible: int | None
    start: int | None
    end: int | None
    limit: int | None
    elapsed: int
    nodes: int
    cpus: int
    gpus: int
    memory_mib: int | None
    priority: int
    restarts: int
    node_list: str
    wanted_nodes: str
    reservation: str
    features: str
    licences: str
    stdout: str
    comment: str

    @property
    def pending(self) -> bool:
        return self.state == "PENDING"

    @property
    def running(self) -> bool:
        return self.state in ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED")

    def waited(self, now: float) -> int | None:
        """Seconds from being allowed to start until the start, or until `now`; 0 before it is allowed."""
        if self.eligible is None:
            return 0 if self.pending else None
        until = self.start if not self.pending and self.start is not None else now
        return max(0, int(until) - self.eligible)


def command(separator: str) -> list[str]:
    """The squeue call whose output `parse` reads with the same separator."""
    return ["squeue", "--all", "--noheader", "-O", ",".join(f"{field}:{separator}" for field in FIELDS)]


def parse(text: str, separator: str) -> list[Job]:
    """The jobs in the text of `command(separator)`; a record without a job id is left out."""
    jobs = (job_of(dict(zip(FIELDS, row, strict=True))) for row in records(text, separator, len(FIELDS)))
    return [job for job in jobs if job is not None]


def job_of(row: dict[str, str]) -> Job | None:
    job_id = number(row["JobID"])
    if job_id is None:
        return None
    nodes = number(row["NumNodes"]) or 0
    gpus = gpus_of_tres(row["tres-alloc"])
    if not gpus:
        gpus = gpus_of_gres(row["tres-per-node"]) * nodes
    state = row["State"].strip()
    return Job(
        job_id=job_id,
        shown_id=row["JobArrayID"].strip() or str(job_id),
        array_id=number(row["ArrayJobID"]) if word(row["ArrayTaskID"]) else None,
        tasks=array_tasks(row["ArrayTaskID"]),
        name=row["Name"],
        user=row["UserName"].strip(),
        account=word(row["Account"]),
        partition=word(row["Partition"]),
        qos=word(row["QOS"]),
        state=state,
        reason=word(row["Reason"]),
        dependency=word(row["Dependency"]),
        submit=epoch(row["SubmitTime"]),
        eligible=epoch(row["EligibleTime"]),
        start=epoch(row["StartTime"]),
        end=epoch(row["EndTime"]),
        limit=seconds(row["TimeLimit"]),
        elapsed=seconds(row["TimeUsed"]) or 0,
        nodes=nodes,
        cpus=number(row["NumCPUs"]) or 0,
        gpus=gpus,
        memory_mib=mebibytes(tres_of(row["tres-alloc"]).get("mem", "")),
        priority=number(row["PriorityLong"]) or 0,
        restarts=number(row["RestartCnt"]) or 0,
        node_list=word(row["NodeList"]),
        wanted_nodes=word(row["ReqNodes"]),
        reservation=word(row["Reservation"]),
        features=word(row["Feature"]),
        licences=word(row["Licenses"]),
        stdout=word(row["STDOUT"]),
        comment=word(row["Comment"]),
    )
