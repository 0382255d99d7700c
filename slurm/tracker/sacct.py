"""Accounting as `sacct` writes it: one `Attempt` per start of a job, so a requeued job has several."""

from __future__ import annotations

from dataclasses import dataclass

from slurm.tracker.command import records
from slurm.tracker.fields import epoch, gpus_of_tres, mebibytes, number, tres, word
from slurm.tracker.nodes import default_limits

# Names of `sacct --format`, the same in 22.05, 23.11, 24.05 and 25.05.
FIELDS = (
    "Cluster",
    "JobIDRaw",
    "JobID",
    "User",
    "Account",
    "Partition",
    "QOS",
    "State",
    "ExitCode",
    "Submit",
    "Eligible",
    "Start",
    "End",
    "ElapsedRaw",
    "TimelimitRaw",
    "NNodes",
    "NCPUS",
    "ReqTRES",
    "AllocTRES",
    "ConsumedEnergyRaw",
    "Comment",
    "JobName",
)

FINISHED = frozenset(
    {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL"}
    | {"DEADLINE", "REQUEUED", "REVOKED"}
)


@dataclass(slots=True)
class Attempt:
    """One attempt of a job. Times are UTC epoch seconds, spans seconds; None is "not known" or "not yet".

    `elapsed` is Slurm's own figure: for a job still running, that of the moment sacct was asked.
    """

    cluster: str
    job_id: str
    shown_id: str
    user: str
    account: str
    partition: str
    qos: str
    state: str
    exit_code: str
    submit: int
    eligible: int | None
    start: int | None
    end: int | None
    elapsed: int
    limit: int | None
    nodes: int
    cpus: int
    gpus: int
    memory_mib: int | None
    energy_joules: int | None
    comment: str
    name: str

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.state in FINISHED

    @property
    def waited(self) -> int | None:
        """Seconds from being allowed to start until the start, as sacct's Planned (22.05: Reserved)."""
        if self.start is None or self.eligible is None:
            return None
        return max(0, self.start - self.eligible)


def command(separator: str, *selection: str) -> list[str]:
    """The sacct call whose output `parse` reads; `selection` says which jobs, as `-S now-7days`."""
    return [
        "sacct",
        "--allocations",
        "--duplicates",
        "--noheader",
        "--parsable",
        f"--delimiter={separator}",
        f"--format={','.join(FIELDS)}",
        *selection,
    ]


def parse(text: str, separator: str) -> list[Attempt]:
    """The attempts in the text of `command(separator)`; a record without a submit time is left out."""
    attempts = (
        _attempt_of(dict(zip(FIELDS, row, strict=True))) for row in records(text, separator, len(FIELDS))
    )
    return [attempt for attempt in attempts if attempt is not None]


def _attempt_of(row: dict[str, str]) -> Attempt | None:
    submit = epoch(row["Submit"])
    if submit is None or not word(row["JobIDRaw"]):
        return None
    start, end = epoch(row["Start"]), epoch(row["End"])
    allocated = row["AllocTRES"] if word(row["AllocTRES"]) else row["ReqTRES"]
    state = (row["State"].split() or [""])[0].rstrip("+")
    if state in FINISHED and start is not None and end is not None and start > end:
        start = None
    energy = number(row["ConsumedEnergyRaw"])
    limit = number(row["TimelimitRaw"])
    limit = None if limit is None else limit * 60
    if row["TimelimitRaw"].strip().lower() == "partition_limit":
        limit = default_limits().get(word(row["Partition"]))
    return Attempt(
        cluster=word(row["Cluster"]),
        job_id=row["JobIDRaw"].strip(),
        shown_id=row["JobID"].strip(),
        user=row["User"].strip(),
        account=word(row["Account"]),
        partition=word(row["Partition"]),
        qos=word(row["QOS"]),
        state=state,
        exit_code=word(row["ExitCode"]),
        submit=submit,
        eligible=epoch(row["Eligible"]),
        start=start,
        end=end,
        elapsed=number(row["ElapsedRaw"]) or 0,
        limit=limit,
        nodes=number(row["NNodes"]) or 0,
        cpus=number(row["NCPUS"]) or 0,
        gpus=gpus_of_tres(allocated) or 0,
        memory_mib=mebibytes(tres(allocated).get("mem", "")),
        # Zero is what a site without an energy plugin reports.
        energy_joules=energy or None,
        comment=word(row["Comment"]),
        name=row["JobName"],
    )
