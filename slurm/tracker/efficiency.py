"""`elm-queue eff`: how much of what a job held it used, and what to ask for next time.

Cores and memory come from the job's steps as Slurm's accounting sampled them, GPUs only where the site
records their use (Slurm 23.02 and later with AutoDetect). A job without finished steps has no figures yet.
A job that was requeued has a line for each of its attempts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from slurm.tracker import command
from slurm.tracker.command import records
from slurm.tracker.fields import gpus_of_tres, kibibytes, mebibytes, number, seconds, tres, word
from slurm.tracker.show import span, table

FIELDS = (
    *("JobIDRaw", "JobID", "User", "State", "ElapsedRaw", "TimelimitRaw", "NCPUS", "NNodes", "AllocTRES"),
    *("TotalCPU", "MaxRSS", "TRESUsageInTot", "TRESUsageInAve", "JobName"),
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


@dataclass
class Efficiency:
    """One attempt's shares, each between 0 and about 1, None when unknown."""

    shown_id: str
    user: str
    name: str
    state: str
    elapsed: int
    limit: int | None
    gpus: int
    cpu: float | None = None
    memory: float | None = None
    gpu: float | None = None
    used_mib: float | None = None
    asked_mib: int | None = None
    advice: list[str] = field(default_factory=list)

    @property
    def time(self) -> float | None:
        """The share of the time limit that it used."""
        return self.elapsed / self.limit if self.limit else None


def measure(*selection: str) -> list[Efficiency]:
    """Efficiency of every attempt of the jobs that sacct selects, as `-j 4711` or `-S now-1day`.

    Raises:
        Unreachable: sacct does not answer.
    """
    separator = command.separator()
    text = command.run(
        [
            *("sacct", "--duplicates", "--noheader", "--parsable", f"--delimiter={separator}"),
            *(f"--format={','.join(FIELDS)}", *selection),
        ]
    )
    return parse(text, separator)


def parse(text: str, separator: str) -> list[Efficiency]:
    """The attempts in sacct's text, each followed by its steps there."""
    found: list[Efficiency] = []
    for row in records(text, separator, len(FIELDS)):
        values = dict(zip(FIELDS, row, strict=True))
        if "." not in values["JobIDRaw"]:
            found.append(_job_of(values))
        elif found:
            _add_step(found[-1], values)
    attempts = Counter(job.shown_id for job in found)
    for job in found:
        job.advice = _advice(job, attempts[job.shown_id])
    return found


def _job_of(values: dict[str, str]) -> Efficiency:
    elapsed, cores = number(values["ElapsedRaw"]) or 0, number(values["NCPUS"]) or 0
    limit = number(values["TimelimitRaw"])
    used = seconds(values["TotalCPU"])
    state = (values["State"].split() or [""])[0]
    over = state not in ("RUNNING", "PENDING", "SUSPENDED")
    return Efficiency(
        shown_id=values["JobID"].strip(),
        user=values["User"].strip(),
        name=values["JobName"],
        state=state,
        elapsed=elapsed,
        limit=None if limit is None else limit * 60,
        gpus=gpus_of_tres(values["AllocTRES"]) or 0,
        cpu=used / (elapsed * cores) if over and used is not None and elapsed and cores else None,
        asked_mib=mebibytes(tres(values["AllocTRES"]).get("mem", "")),
    )


def _add_step(job: Efficiency, values: dict[str, str]) -> None:
    """Takes in one step: the largest step's memory counts, because steps run one after another or share."""
    if values["JobIDRaw"].endswith(".extern"):
        return
    total = kibibytes(tres(values["TRESUsageInTot"]).get("mem", "")) or kibibytes(values["MaxRSS"])
    if total:
        job.used_mib = max(job.used_mib or 0.0, total / 1024)
        job.memory = job.used_mib / job.asked_mib if job.asked_mib else None
    busy = word(tres(values["TRESUsageInAve"]).get("gres/gpuutil", ""))
    if busy and busy.replace(".", "", 1).isdigit():
        job.gpu = max(job.gpu or 0.0, float(busy) / 100)


def _advice(job: Efficiency, attempts: int) -> list[str]:
    """What to ask for next time; nothing for jobs too short to judge.

    One of several attempts says nothing of the time limit: what they did together went over several of them.
    """
    if job.state == "PENDING":
        return ["it has not run yet" if attempts == 1 else "it waits to go on"]
    if job.elapsed < SHORT_SECONDS:
        return []
    lines = []
    if job.state == "OUT_OF_MEMORY":
        lines.append("it ran out of memory: ask for more")
    elif job.memory is not None and job.used_mib and job.asked_mib:
        used = f"it used {job.used_mib:.0f} of {job.asked_mib} MiB"
        if job.memory > 1:
            lines.append(f"{used}: ask for more, before a limit ends it")
        elif job.memory < LOW_MEMORY and job.asked_mib - job.used_mib > SPARE_MIB:
            lines.append(f"{used}: ask for {job.used_mib * 1.3:.0f} MiB")
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


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0%}"


def text(found: list[Efficiency]) -> str:
    """The table."""
    return table({title: [cell(e) for e in found] for title, cell in COLUMNS.items()})
