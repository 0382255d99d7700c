"""Which limit of an account or a QOS stops a job: from the reason's word to sacctmgr's column and value.

The words are put together by a pattern: whose limit (`Assoc`, `QOS`, or nothing for a QOS's limit per
account), of a group or of one (`Grp`, `Max`, `Min`), of what (`Cpu`, `Node`, `GRES`, `Jobs`, …), and per what
(`PerUser`, `PerJob`, …). AssocGrpNodeLimit is the GrpTRES `node` of the job's account or of one above it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from slurm.tracker import command
from slurm.tracker.fields import host_names, mebibytes, tres
from slurm.tracker.squeue import Job

RESOURCES = {
    "cpu": ("cpu", "cores"),
    "node": ("node", "nodes"),
    "mem": ("mem", "memory"),
    "memory": ("mem", "memory"),
    "gres": ("gres/gpu", "GPUs"),
    "license": ("license", "licences"),
    "billing": ("billing", "billing units"),
    "energy": ("energy", "energy"),
}


@dataclass(frozen=True)
class Limit:
    """What a reason speaks of.

    Attributes:
        column: sacctmgr's column, as `GrpTRES`.
        entry: the entry of a TRES column, as `node`; "" for a column that is one number.
        what: the resource in words.
        group: whether the use of all jobs together counts.
        per: "user", "account", "node", "job" or "".
    """

    column: str
    entry: str
    what: str
    group: bool
    per: str


def limit_of(reason: str) -> Limit | None:
    """The limit that an Assoc… or QOS… reason names; None for a word that does not follow the pattern."""
    match = re.match(r"(Assoc|QOS|)(Grp|Max|Min)(.*?)(?:Limit|NotSatisfied)?$", reason)
    if not match:
        return None
    owner, kind, rest = match.groups()
    per = re.search(r"Per(User|Account|Node|Job)", rest)
    per_what = per[1].lower() if per else ""
    rest = re.sub(r"Per(User|Account|Node|Job)", "", rest)
    suffix = {"user": "PU", "account": "PA"}.get(per_what, "") if owner != "Assoc" else ""
    lowered = rest.lower()
    group = kind == "Grp" or (owner != "Assoc" and per_what in ("user", "account"))
    if lowered.startswith("submit"):
        return Limit(f"{kind}Submit{suffix}", "", "jobs handed in", True, per_what)
    if lowered.startswith("job"):
        return Limit(f"{kind}Jobs{suffix}", "", "running jobs", True, per_what)
    if lowered.startswith("wall"):
        return Limit(f"{kind}Wall", "", "run time", group, per_what)
    named = re.match(r"(cpu|node|mem(?:ory)?|gres|license|billing|energy)", lowered)
    if not named:
        return None
    entry, what = RESOURCES[named[1]]
    if "runminutes" in lowered or "runmins" in lowered:
        return Limit(
            f"{kind}TRESRunMins{suffix}", entry, f"{what} × minutes of running jobs", group, per_what
        )
    if "minutes" in lowered or "mins" in lowered:
        return Limit(f"{kind}TRESMins", entry, f"{what} × minutes", group, per_what)
    column = "MaxTRESPerNode" if per_what == "node" else f"{kind}TRES{suffix}"
    return Limit(column, entry, what, group, per_what)


def association_limits(job: Job, limit: Limit) -> list[tuple[str, str]]:
    """Where the limit is set for this job, nearest first: (whose, value) for user, account and those above.

    Raises:
        Unreachable: sacctmgr does not answer.
    """
    rows = _table("assoc", ("Account", "User", "ParentName", limit.column))
    accounts = {row["Account"]: row for row in rows if not row["User"]}
    own = [row for row in rows if row["Account"] == job.account and row["User"] == job.user]
    path = [(f"user {job.user} in account {job.account}", row) for row in own]
    name = job.account
    while name in accounts and len(path) < 30:
        path.append((f"account {name}", accounts[name]))
        name = accounts[name]["ParentName"]
    return [(whose, value) for whose, row in path if (value := value_of(row, limit))]


def qos_limits(job: Job, limit: Limit) -> list[tuple[str, str]]:
    """The same for the job's QOS.

    Raises:
        Unreachable: sacctmgr does not answer.
    """
    rows = _table("qos", ("Name", limit.column))
    return [(f"QOS {job.qos}", v) for row in rows if row["Name"] == job.qos and (v := value_of(row, limit))]


def _table(what: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    text = command.run(["sacctmgr", "-n", "-P", "show", what, f"format={','.join(columns)}"])
    lines = (line.split("|") for line in text.splitlines())
    return [dict(zip(columns, line, strict=True)) for line in lines if len(line) == len(columns)]


def value_of(row: dict[str, str], limit: Limit) -> str:
    """The limit's value in a row of sacctmgr, "" where the row does not set it."""
    value = row.get(limit.column, "")
    if not limit.entry:
        return value
    entries = tres(value)
    if limit.entry in entries:
        return entries[limit.entry]
    # GPUs by type and licences by name: `gres/gpu:h100`, `license/matlab`.
    named = [v for name, v in entries.items() if re.split("(?<!gres)[/:]", name)[0] == limit.entry]
    return ", ".join(named)


def amount(job: Job, limit: Limit) -> int | None:
    """How much of the limited thing one job holds or asks for; None when it is not a countable one."""
    if "Mins" in limit.column or limit.column.endswith("Wall"):
        return None
    if not limit.entry:
        return job.tasks
    return {
        "cpu": job.cpus,
        "node": len(host_names(job.node_list)) or job.nodes,
        "mem": job.memory_mib,
        "gres/gpu": job.gpus,
    }.get(limit.entry)


def held(job: Job, limit: Limit, jobs: list[Job], by_qos: bool) -> int | None:
    """How much running jobs under the same limit hold together; waiting ones too where handing in counts."""
    submitted = "Submit" in limit.column
    total = 0
    for other in jobs:
        same = other.qos == job.qos if by_qos else other.account == job.account
        if limit.per == "user":
            same = same and other.user == job.user
        if limit.per == "account":
            same = same and other.account == job.account
        if not same or not (other.running or submitted):
            continue
        part = amount(other, limit)
        if part is None:
            return None
        total += part
    return total


def allowed(value: str, limit: Limit) -> str:
    """The limit's value in words of its resource, as `1 nodes` or `2048 MiB`."""
    if limit.entry == "mem":
        return f"{mebibytes(value)} MiB"
    return f"{value} {limit.what}"
