"""`elm-queue eff`: how much of what a job held it used, and what to ask for next time.

Cores and memory come from the job's steps as accounting sampled them, for a running job from `sstat`; GPUs
only where the site records their use (Slurm 23.02 and later with AutoDetect). A job that was requeued has a
line for each of its attempts. What is not known gives no advice: an attempt whose node was lost has no
figures, and a processor time of zero, which Slurm 25.05 may write, is taken from the steps instead.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from slurm.tracker import command
from slurm.tracker.command import Unreachable, records
from slurm.tracker.fields import gpus_of_tres, kibibytes, mebibytes, number, seconds, tres, word
from slurm.tracker.nodes import default_limits
from slurm.tracker.show import csv_text, escaped, span, table

FIELDS = (
    *("Cluster", "JobIDRaw", "JobID", "User", "Account", "Partition", "State", "ElapsedRaw", "TimelimitRaw"),
    *("NCPUS", "NNodes", "AllocTRES", "TotalCPU", "MaxRSS", "TRESUsageInTot", "TRESUsageInAve", "JobName"),
)
SSTAT_FIELDS = (
    *("JobID", "NTasks", "MaxRSS", "MaxRSSNode", "MinCPU", "MinCPUNode"),
    *("TRESUsageInTot", "TRESUsageInAve"),
)

# Below these shares advice is given.
LOW_CPU = 0.5
LOW_MEMORY = 0.5
LOW_TIME = 0.5
LOW_GPU = 0.3
# Memory to spare below this is not worth a word.
SPARE_MIB = 1024
# A job shorter than this says little of itself.
SHORT_SECONDS = 60
# Their steps never reported: what they used is not known.
LOST = frozenset({"NODE_FAIL", "BOOT_FAIL", "REVOKED"})
NOT_OVER = frozenset({"RUNNING", "PENDING", "SUSPENDED"})


@dataclass
class Efficiency:
    """One attempt's shares, each between 0 and about 1, None when unknown."""

    cluster: str
    job_id: str
    shown_id: str
    user: str
    account: str
    partition: str
    name: str
    state: str
    elapsed: int
    limit: int | None
    nodes: int
    cores: int
    gpus: int
    asked_mib: int | None = None
    total_cpu: int = 0
    step_seconds: int = 0
    used_mib: float | None = None
    gpu: float | None = None
    details: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    @property
    def known(self) -> bool:
        """Whether its steps could report what they used."""
        return self.state not in LOST and self.state != "PENDING"

    @property
    def time(self) -> float | None:
        """The share of the time limit that it used."""
        return self.elapsed / self.limit if self.limit else None

    @property
    def cpu_seconds(self) -> int:
        """Processor time: of the job as a whole, or of its steps where Slurm gives no sum."""
        return self.total_cpu or self.step_seconds

    @property
    def cpu(self) -> float | None:
        """The share of its cores' time that they were busy."""
        if not self.known or not self.cpu_seconds or not self.elapsed or not self.cores:
            return None
        return self.cpu_seconds / (self.elapsed * self.cores)

    @property
    def memory(self) -> float | None:
        """The share of its memory that its largest step used."""
        return self.used_mib / self.asked_mib if self.known and self.used_mib and self.asked_mib else None


def measure(*selection: str) -> list[Efficiency]:
    """Efficiency of every attempt of the jobs that sacct selects, as `-j 4711` or `-S now-1day`.

    Raises:
        Unreachable: sacct does not answer.
    """
    separator = command.separator()
    argv = [
        *("sacct", "--duplicates", "--noheader", "--parsable", f"--delimiter={separator}"),
        *(f"--format={','.join(FIELDS)}", *selection),
    ]
    found = parse(command.run(argv), separator)
    for job in found:
        if job.state == "RUNNING":
            _add_live(job)
    return found


def parse(text: str, separator: str) -> list[Efficiency]:
    """The attempts in sacct's text, each followed by its steps there."""
    found: list[Efficiency] = []
    for row in records(text, separator, len(FIELDS)):
        values = dict(zip(FIELDS, row, strict=True))
        if "." not in values["JobIDRaw"]:
            found.append(_job_of(values))
        elif found:
            _add_step(found[-1], values)
    attempts = Counter((job.cluster, job.shown_id) for job in found)
    for job in found:
        same = [one for one in found if (one.cluster, one.shown_id) == (job.cluster, job.shown_id)]
        job.advice = _advice(job, attempts[job.cluster, job.shown_id], same)
    return found


def _job_of(values: dict[str, str]) -> Efficiency:
    limit = number(values["TimelimitRaw"])
    limit = None if limit is None else limit * 60
    partition, state = word(values["Partition"]), (values["State"].split() or [""])[0].rstrip("+")
    if values["TimelimitRaw"].strip().lower() == "partition_limit":
        limit = default_limits().get(partition)
    return Efficiency(
        cluster=word(values["Cluster"]),
        job_id=values["JobIDRaw"].strip(),
        shown_id=values["JobID"].strip(),
        user=values["User"].strip(),
        account=word(values["Account"]),
        partition=partition,
        name=values["JobName"],
        state=state,
        elapsed=number(values["ElapsedRaw"]) or 0,
        limit=limit,
        nodes=number(values["NNodes"]) or 0,
        cores=number(values["NCPUS"]) or 0,
        gpus=gpus_of_tres(values["AllocTRES"]) or 0,
        asked_mib=mebibytes(tres(values["AllocTRES"]).get("mem", "")),
        # Of a running job only the steps that ended.
        total_cpu=0 if state in NOT_OVER else seconds(values["TotalCPU"]) or 0,
    )


def _add_step(job: Efficiency, values: dict[str, str]) -> None:
    """Take in one step: the largest step's memory counts, because steps run one after another or share."""
    if values["JobIDRaw"].endswith(".extern"):
        return
    used = tres(values["TRESUsageInTot"])
    total = kibibytes(used.get("mem", "")) or kibibytes(values["MaxRSS"])
    if total:
        job.used_mib = max(job.used_mib or 0.0, total / 1024)
    job.step_seconds += seconds(used.get("cpu", "")) or 0
    busy = word(tres(values["TRESUsageInAve"]).get("gres/gpuutil", ""))
    if busy and busy.replace(".", "", 1).isdigit():
        job.gpu = max(job.gpu or 0.0, float(busy) / 100)


def _add_live(job: Efficiency) -> None:
    """What the steps of a running job used so far, by node where Slurm says it; nothing without sstat."""
    # sstat has no other separator; none of these fields holds a name that a user chose.
    argv = ["sstat", "--allsteps", "--noheader", "--parsable", f"--format={','.join(SSTAT_FIELDS)}"]
    try:
        text = command.run([*argv, "-j", job.job_id])
    except Unreachable:
        return
    for row in records(text, "|", len(SSTAT_FIELDS)):
        values = dict(zip(SSTAT_FIELDS, row, strict=True))
        if values["JobID"].endswith(".extern"):
            continue
        _add_step(job, values | {"JobIDRaw": values["JobID"]})
        if most := kibibytes(values["MaxRSS"]):
            job.details.append(
                f"step {values['JobID'].partition('.')[2]}: {values['NTasks']} task(s), the largest has "
                f"{most / 1024:.0f} MiB on {values['MaxRSSNode']}, the one that computed least "
                f"{values['MinCPU']} on {values['MinCPUNode']}"
            )
    job.advice = []


def _advice(job: Efficiency, attempts: int, same: Sequence[Efficiency]) -> list[str]:
    """What to ask for next time; nothing for jobs too short to judge, or whose figures are not known.

    One of several attempts says nothing of the time limit: what they did together went over several of them.
    Its memory is judged by the attempt that used most.
    """
    if job.state == "PENDING":
        return ["it has not run yet" if attempts == 1 else "it waits to go on"]
    if job.state in LOST:
        return ["its node was lost, and with it what it used"]
    if job.elapsed < SHORT_SECONDS or job.state in NOT_OVER:
        return []
    lines = []
    most = max((one.used_mib or 0.0 for one in same), default=0.0)
    if job.state == "OUT_OF_MEMORY":
        lines.append("it ran out of memory: ask for more")
    elif job.memory is not None and job.used_mib and job.asked_mib:
        used = f"it used {job.used_mib:.0f} of {job.asked_mib} MiB"
        enough = most < LOW_MEMORY * job.asked_mib and job.asked_mib - most > SPARE_MIB
        if job.memory > 1:
            lines.append(f"{used}: ask for more, before a limit ends it")
        elif enough and not any(one.state in ("OUT_OF_MEMORY", *LOST) for one in same):
            lines.append(f"{used}: ask for {most * 1.3:.0f} MiB")
    if job.state == "TIMEOUT":
        lines.append("its time limit ended it: ask for more time or save and requeue before it")
    elif job.state == "COMPLETED" and attempts == 1 and job.time is not None and job.time < LOW_TIME:
        lines.append(
            f"it ended after {span(job.elapsed)} of {span(job.limit)}: a shorter limit starts sooner"
        )
    if job.cpu is not None and job.cpu < LOW_CPU and not job.gpus:
        lines.append(f"its cores were busy {job.cpu:.0%} of the time: ask for fewer")
    if job.gpus and job.gpu is not None and job.gpu < LOW_GPU:
        lines.append(f"its GPUs were busy {job.gpu:.0%} of the time: ask for fewer, or feed them faster")
    return lines


COLUMNS: dict[str, Callable[[Efficiency], str]] = {
    "ID": lambda e: e.shown_id,
    "NAME": lambda e: e.name,
    "USER": lambda e: e.user,
    "STATE": lambda e: e.state.lower(),
    "ELAPSED": lambda e: span(e.elapsed),
    "TIME": lambda e: _share(e.time),
    "CPU": lambda e: _share(e.cpu),
    "MEMORY": lambda e: _share(e.memory),
    "GPU": lambda e: _share(e.gpu) if e.gpus or e.state == "PENDING" else "none",
    "ADVICE": lambda e: "; ".join(e.advice),
}

# Column of JSON and CSV → raw value: spans in seconds, memory in MiB, shares between 0 and about 1.
VALUES: dict[str, Callable[[Efficiency], Any]] = {
    "id": lambda e: e.shown_id,
    "job_id": lambda e: e.job_id,
    "cluster": lambda e: e.cluster,
    "name": lambda e: e.name,
    "user": lambda e: e.user,
    "account": lambda e: e.account,
    "partition": lambda e: e.partition,
    "state": lambda e: e.state,
    "elapsed": lambda e: e.elapsed,
    "limit": lambda e: e.limit,
    "nodes": lambda e: e.nodes,
    "cores": lambda e: e.cores,
    "gpus": lambda e: e.gpus,
    "asked_mib": lambda e: e.asked_mib,
    "used_mib": lambda e: None if e.used_mib is None or not e.known else round(e.used_mib, 1),
    "time_share": lambda e: _rounded(e.time),
    "cpu_share": lambda e: _rounded(e.cpu),
    "memory_share": lambda e: _rounded(e.memory),
    "gpu_share": lambda e: _rounded(e.gpu),
    "advice": lambda e: "; ".join(e.advice),
}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0%}"


def text(found: list[Efficiency]) -> str:
    """The table, and under it the steps of the jobs that run."""
    lines = [table({title: [cell(e) for e in found] for title, cell in COLUMNS.items()})]
    return "\n".join([*lines, *(escaped(f"{e.shown_id}: {line}") for e in found for line in e.details)])


def json_text(found: list[Efficiency]) -> str:
    """The attempts as one JSON list."""
    rows = [{name: value(e) for name, value in VALUES.items()} | {"steps": e.details} for e in found]
    return json.dumps(rows, ensure_ascii=False)


def csv_list(found: list[Efficiency]) -> str:
    """The attempts as CSV."""
    return csv_text([*VALUES], ([value(e) for value in VALUES.values()] for e in found))
