"""The nodes as `sinfo -N -O` writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from slurm.tracker import command as command_
from slurm.tracker.command import records
from slurm.tracker.fields import gpus_of_gres, number, seconds, word

FIELDS = (
    "NodeList",
    "StateLong",
    "CPUsState",
    "Gres",
    "GresUsed",
    "Memory",
    "AllocMem",
    "Partition",
    "Reason",
)

# Beginnings of state words; `resv` and `reserved` are open to the jobs of the reservation alone.
CLOSED = (
    *(
        "down",
        "drain",
        "fail",
        "maint",
        "unk",
        "power",
        "reboot",
        "inval",
        "resv",
        "reserved",
        "futu",
        "futr",
    ),
    *("perfctrs", "npc", "blocked", "no_respond", "error"),
)


@dataclass(slots=True)
class Node:
    """One node with what is free on it. `memory_*` in MiB."""

    name: str
    partitions: tuple[str, ...]
    state: str
    cpus: int
    cpus_used: int
    gpus: int
    gpus_used: int
    memory: int
    memory_used: int
    reason: str

    @property
    def available(self) -> bool:
        """Whether jobs without a reservation may start on it."""
        return not self.word.startswith(CLOSED) and not self.state.endswith("*")

    @property
    def word(self) -> str:
        """Its state without Slurm's marks: `idle` of `idle~`."""
        return self.state.rstrip("*~#!%$@^-+").lower()

    @property
    def free(self) -> dict[str, int]:
        """Cores, GPUs and MiB that jobs may take."""
        if not self.available:
            return {"cpus": 0, "gpus": 0, "memory": 0}
        return {
            "cpus": self.cpus - self.cpus_used,
            "gpus": self.gpus - self.gpus_used,
            "memory": self.memory - self.memory_used,
        }


def command(separator: str) -> list[str]:
    """The sinfo call whose output `parse` reads with the same separator."""
    formats = ",".join(f"{field}:{separator}" for field in FIELDS)
    return ["sinfo", "--all", "--noheader", "--Node", "-O", formats]


def parse(text: str, separator: str) -> list[Node]:
    """The nodes, each once with all its partitions, in the order of their first line."""
    nodes: dict[str, Node] = {}
    for row in records(text, separator, len(FIELDS)):
        values = dict(zip(FIELDS, row, strict=True))
        name = values["NodeList"].strip()
        partition = values["Partition"].strip().rstrip("*")
        if name in nodes:
            nodes[name].partitions += (partition,)
            continue
        # Allocated/idle/other/total.
        cpus = [int(part) for part in re.findall(r"\d+", values["CPUsState"])] + [0] * 4
        nodes[name] = Node(
            name=name,
            partitions=(partition,),
            state=values["StateLong"].strip(),
            cpus=cpus[3],
            cpus_used=cpus[0],
            gpus=gpus_of_gres(values["Gres"]),
            gpus_used=gpus_of_gres(values["GresUsed"]),
            memory=number(values["Memory"]) or 0,
            memory_used=number(values["AllocMem"]) or 0,
            reason=word(values["Reason"]),
        )
    return list(nodes.values())


@cache
def default_limits() -> dict[str, int]:
    """Seconds that a job without a time limit gets in each partition: its DefaultTime, else its MaxTime."""
    separator = command_.separator()
    fields = ("PartitionName", "DefaultTime", "Time")
    try:
        text = command_.run(
            ["sinfo", "--all", "--noheader", "-O", ",".join(f"{field}:{separator}" for field in fields)]
        )
    except command_.Unreachable:
        return {}
    rows = records(text, separator, len(fields))
    limits = ((name.strip().rstrip("*"), seconds(default) or seconds(most)) for name, default, most in rows)
    return {name: limit for name, limit in limits if limit}
