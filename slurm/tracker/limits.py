"""Which limit of an account or a QOS stops a job: from the reason's word to sacctmgr's column and value.

The words are put together by a pattern: whose limit (`Assoc`, `QOS`, or nothing for a QOS's limit per
account), of a group or of one (`Grp`, `Max`, `Min`), of what (`Cpu`, `Node`, `GRES`, `Jobs`, …), and per what
(`PerUser`, `PerJob`, …). AssocGrpNodeLimit is the GrpTRES `node` of the job's account or of one above it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from slurm.tracker import command
from slurm.tracker.command import Unreachable
from slurm.tracker.fields import host_names, mebibytes, number, pairs, tres, word
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


@dataclass(frozen=True)
class Level:
    """One place where a limit is set for a job.

    Attributes:
        whose: in words, as `account eur`.
        value: as sacctmgr writes it.
        covers: whether another job counts under it.
    """

    whose: str
    value: str
    covers: Callable[[Job], bool]


def association_levels(job: Job, limit: Limit) -> list[Level]:
    """Where the limit is set for this job: its user in its account, the account, and those above.

    A limit of a group counts at every level, with the jobs of all accounts below. Any other limit is
    inherited: the nearest level that sets it counts alone.

    Raises:
        Unreachable: sacctmgr does not answer.
    """
    columns = ("Cluster", "Account", "User", "Partition", "ParentName", limit.column)
    cluster = job.cluster or command.cluster_name()
    rows = [row for row in _table("assoc", columns) if cluster in ("", row["Cluster"])]
    accounts = {row["Account"]: row for row in rows if not row["User"]}
    own = [row for row in rows if row["Account"] == job.account and row["User"] == job.user]
    own = [row for row in own if row["Partition"] in job.partition.split(",")] or [
        row for row in own if not row["Partition"]
    ]
    found = [
        Level(f"user {job.user} in account {job.account}", value, _of_user(job))
        for row in own[:1]
        if (value := value_of(row, limit))
    ]
    name, seen = job.account, set()
    while name in accounts and name not in seen:
        seen.add(name)
        if value := value_of(accounts[name], limit):
            found.append(Level(f"account {name}", value, _of_accounts(_below(name, accounts))))
        name = accounts[name]["ParentName"]
    return found if limit.column.startswith("Grp") else found[:1]


def _of_user(job: Job) -> Callable[[Job], bool]:
    return lambda other: (other.user, other.account) == (job.user, job.account)


def _of_accounts(names: frozenset[str]) -> Callable[[Job], bool]:
    return lambda other: other.account in names


def _below(top: str, accounts: dict[str, dict[str, str]]) -> frozenset[str]:
    """The account and all accounts under it."""
    names, added = {top}, True
    while added:
        more = {name for name, row in accounts.items() if row["ParentName"] in names} - names
        added = bool(more)
        names |= more
    return frozenset(names)


def qos_levels(job: Job, limit: Limit) -> list[Level]:
    """Where QOS set the limit: the partition's QOS and the job's, the one that Slurm asks first.

    A partition's QOS goes first, unless the job's QOS has the flag OverPartQOS; the second one counts where
    the first does not set the limit (slurm.conf's manual, "Resource Limits").

    Raises:
        Unreachable: sacctmgr does not answer.
    """
    rows = {row["Name"]: row for row in _table("qos", ("Name", "Flags", limit.column))}
    of_partition = _partition_qos()
    found = []
    for partition in job.partition.split(","):
        name = of_partition.get(partition, "")
        if value := value_of(rows.get(name, {}), limit):
            inside = frozenset(one for one, qos in of_partition.items() if qos == name)
            found.append(Level(f"QOS {name} of partition {partition}", value, _in_partitions(inside)))
    own = rows.get(job.qos, {})
    if value := value_of(own, limit):
        level = Level(f"QOS {job.qos}", value, lambda other: other.qos == job.qos)
        found.insert(0 if "OverPartQOS" in own.get("Flags", "") else len(found), level)
    return found[:1] if len(job.partition.split(",")) == 1 else found


def _in_partitions(names: frozenset[str]) -> Callable[[Job], bool]:
    return lambda other: not names.isdisjoint(other.partition.split(","))


def _partition_qos() -> dict[str, str]:
    """The QOS of each partition that has one."""
    try:
        lines = command.run(["scontrol", "show", "partition", "--oneliner"]).splitlines()
    except Unreachable:
        return {}
    rows = map(pairs, lines)
    return {row["PartitionName"]: qos for row in rows if (qos := word(row.get("QoS", "")))}


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


def held(job: Job, limit: Limit, level: Level, jobs: list[Job]) -> int | None:
    """How much the running jobs under a level hold together; waiting ones too where handing in counts."""
    submitted = "Submit" in limit.column
    total = 0
    for other in jobs:
        if limit.per == "user" and other.user != job.user:
            continue
        if limit.per == "account" and other.account != job.account:
            continue
        if not level.covers(other) or not (other.running or submitted):
            continue
        part = amount(other, limit)
        if part is None:
            return None
        total += part
    return total


def exceeded(job: Job, limit: Limit, level: Level, jobs: list[Job]) -> bool:
    """Whether the job goes over the limit at this level, as far as the picture tells."""
    most, wanted = number(level.value), amount(job, limit)
    if limit.entry == "mem":
        most = mebibytes(level.value)
    if most is None or wanted is None:
        return False
    if limit.column.startswith("Min"):
        return wanted < most
    one = 1 if limit.column.startswith(("GrpJobs", "MaxJobs")) else wanted
    return one + ((held(job, limit, level, jobs) or 0) if limit.group else 0) > most


def allowed(value: str, limit: Limit) -> str:
    """The limit's value in words of its resource, as `1 nodes` or `2048 MiB`."""
    if limit.entry == "mem":
        return f"{mebibytes(value)} MiB"
    return f"{value} {limit.what}"
