"""`elm-queue priority ID`: of which parts a waiting job's priority is made, by `sprio`."""

from __future__ import annotations

import json
from typing import Any

from conf.errors import InputError
from slurm.tracker import command
from slurm.tracker.show import quantity, table
from slurm.tracker.squeue import Job

# Part → sprio's letter for the weighted value, and what makes it larger (slurm.conf's PriorityWeight…).
PARTS = {
    "age": ("A", "the longer it may start already"),
    "fair share": ("F", "the less its account used lately"),
    "job size": ("J", "the more, or the fewer, nodes it asks for, as the site likes it"),
    "partition": ("P", "by the partition"),
    "QOS": ("Q", "by the QOS"),
    "association": ("B", "by the account"),
    "site": ("S", "by the site's own plugin"),
    "TRES": ("T", "by what it asks for"),
    "nice": ("N", "taken off: --nice of its owner"),
}
SEPARATOR = "|"


def facts(job: Job) -> dict[str, Any]:
    """The job's priority, its parts and where it is among the waiting jobs.

    Raises:
        InputError: the job does not wait, or the site has no priorities by part.
        Unreachable: sprio does not answer.
    """
    if not job.pending:
        raise InputError(
            f"id: found {job.shown_id}, which is {job.state.lower()}; only a waiting job has a priority"
        )
    letters = ["Y", *(letter for letter, _ in PARTS.values())]
    layout = SEPARATOR.join(f"%{letter}" for letter in letters)
    text = command.run(["sprio", "--noheader", "-j", str(job.job_id), "-o", layout])
    rows = [line.split(SEPARATOR) for line in text.splitlines() if line.count(SEPARATOR) == len(PARTS)]
    if not rows:
        raise InputError(
            f"id: sprio shows no parts for {job.shown_id}: it is held, or the site sorts jobs by age alone "
            "(PriorityType=priority/basic)"
        )
    whole, *values = (_number(cell) for cell in rows[0])
    return {
        "id": job.shown_id,
        "priority": whole or job.priority,
        "parts": dict(zip(PARTS, values, strict=True)),
    }


def _number(cell: str) -> float:
    """The sum of what sprio writes: TRES come as `cpu=10,mem=5`."""
    total = 0.0
    for part in cell.strip().split(","):
        try:
            total += float(part.rpartition("=")[2])
        except ValueError:
            continue
    return total


def text(found: dict[str, Any]) -> str:
    """The parts as a table, the largest first."""
    parts = sorted(found["parts"].items(), key=lambda item: -abs(item[1]))
    whole = sum(abs(value) for _, value in parts) or 1
    grid = table(
        {
            "PART": [name for name, _ in parts],
            "VALUE": [quantity(value, 0) for _, value in parts],
            "SHARE": [f"{abs(value) / whole:.0%}" for _, value in parts],
            "LARGER": [PARTS[name][1] for name, _ in parts],
        }
    )
    return f"{found['id']}: priority {found['priority']:,.0f}\n{grid}"


def json_text(found: dict[str, Any]) -> str:
    """The same as JSON."""
    return json.dumps(found, ensure_ascii=False)
