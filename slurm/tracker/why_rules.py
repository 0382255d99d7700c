"""Why a job is not allowed to start where it wants: limits, nodes, partitions, reservations, licences."""

from __future__ import annotations

import re
from collections.abc import Callable

from slurm.tracker import command, limits, reservations
from slurm.tracker.command import Unreachable
from slurm.tracker.explanation import Explanation, nodes_of
from slurm.tracker.fields import host_names, pairs
from slurm.tracker.nodes import Node
from slurm.tracker.poll import Picture
from slurm.tracker.reservations import Reservation
from slurm.tracker.show import moment, span
from slurm.tracker.squeue import Job


def association(job: Job, picture: Picture) -> Explanation:
    """A limit of an account or of the user in it."""
    return _limited(job, picture, f"account {job.account or 'unknown'}", limits.association_levels)


def qos(job: Job, picture: Picture) -> Explanation:
    """A limit of a QOS: of the job or of its partition."""
    return _limited(job, picture, f"QOS {job.qos or 'unknown'}", limits.qos_levels)


def _limited(
    job: Job, picture: Picture, owner: str, look_up: Callable[[Job, limits.Limit], list[limits.Level]]
) -> Explanation:
    limit = limits.limit_of(job.reason)
    if limit is None:
        return Explanation(f"A limit of {owner} stops it.", ["which limit is unknown"], WAIT_OR_ASK)
    evidence = []
    try:
        levels = look_up(job, limit)
    except Unreachable as error:
        levels = []
        evidence.append(f"the limit's value is unknown ({error})")
    else:
        if not levels:
            evidence.append(f"the limit's value is unknown: sacctmgr shows no {limit.column} for {owner}")
    # The level that the job goes over; else the only one there is.
    over = [level for level in levels if limits.exceeded(job, limit, level, picture.jobs)]
    if over or len(levels) == 1:
        owner = (over or levels)[0].whose
    evidence += [_level_line(job, limit, level, picture) for level in levels]
    wanted = limits.amount(job, limit)
    if wanted is not None:
        evidence.append(f"this job asks for {wanted} {'MiB' if limit.entry == 'mem' else limit.what}")
    sentence = f"A limit of {owner} on {limit.what}{f' per {limit.per}' if limit.per else ''} stops it."
    return Explanation(sentence, evidence, WAIT_OR_ASK)


def _level_line(job: Job, limit: limits.Limit, level: limits.Level, picture: Picture) -> str:
    per = f" per {limit.per}" if limit.per and not limit.column.endswith(("PU", "PA")) else ""
    used = limits.held(job, limit, level, picture.jobs) if limit.group else None
    together = "" if used is None else f"; running jobs under it hold {used}"
    return f"{level.whose} has {limit.column} = {limits.allowed(level.value, limit)}{per}{together}"


WAIT_OR_ASK = (
    "It starts when the account's other jobs end, if it fits at all; else ask for less or for more room."
)


# ---- nodes, partitions, reservations


NODE_STATES = {
    "inval": "it registered with less than slurm.conf says it has",
    "reserved": "it is in a reservation",
    "maint": "it is in a maintenance reservation",
    "planned": "it is kept free for a larger job",
}


def state_of(node: Node) -> str:
    """A node's state in one line: Slurm's word, what that means, and the admin's reason."""
    meaning = NODE_STATES.get(node.word, "it does not answer" if node.state.endswith("*") else "")
    return f"node {node.name} is {node.state}" + "".join(
        f"{mark}{part}" for mark, part in ((", ", meaning), (": ", node.reason)) if part
    )


def nodes(job: Job, picture: Picture) -> Explanation:
    """Nodes that it needs are out of service or reserved: which, and why."""
    named = re.search(r"UnavailableNodes:(\S+)", job.reason)
    names = set(host_names(named[1])) if named else set(host_names(job.wanted_nodes))
    candidates = [n for n in nodes_of(job, picture) if not names or n.name in names]
    closed = [node for node in candidates if not node.available]
    taken = reserved_from(job, picture)
    if taken and not closed and not named:
        return maintenance(job, picture)
    evidence = [state_of(node) for node in closed[:8]]
    if len(closed) > 8:
        evidence.append(f"and {len(closed) - 8} more")
    evidence += taken
    if not evidence:
        evidence.append("which node is missing is unknown; it may be reserved or held for other jobs")
    what = "the nodes it asks for by name" if job.wanted_nodes else "nodes it needs"
    return Explanation(
        f"It cannot start while {what} are down, drained or reserved.",
        evidence,
        "Ask for other nodes, or ask an admin when they come back.",
    )


def maintenance(job: Job, picture: Picture) -> Explanation:
    """It would not end before a reservation of its nodes begins, a maintenance for example."""
    found = _coming(job, picture)
    evidence = reserved_from(job, picture)
    if not found:
        return Explanation(
            "The nodes it could use are reserved for a maintenance.",
            ["when that begins and ends is unknown: scontrol shows no reservation of its nodes"],
            "It starts after the maintenance; a shorter time limit may let it start before.",
        )
    first = found[0]
    name = f"{'the maintenance' if first.maintenance else 'the reservation'} {first.name}"
    left = first.start - picture.taken
    if left <= 0:
        return Explanation(
            f"It cannot start before {name} of its nodes ends at {moment(first.end)}.",
            evidence,
            "It starts by itself after that.",
        )
    return Explanation(
        f"It would not end before {name} of its nodes begins at {moment(first.start)}.",
        evidence,
        f"A time limit below {span(left)} lets it start before; else it starts after {moment(first.end)}.",
    )


def reserved_from(job: Job, picture: Picture) -> list[str]:
    """A line on each reservation of its partitions' nodes that it may not use and would run into."""
    lines = []
    for one in _coming(job, picture):
        kind = "maintenance" if one.maintenance else "reservation"
        lines.append(
            f"{kind} {one.name} takes {one.nodes} from {moment(one.start)} to {moment(one.end)}; "
            f"the job asks for {span(job.limit) if job.limit else 'no time limit'}"
        )
    return lines


def _coming(job: Job, picture: Picture) -> list[Reservation]:
    own = {node.name for node in nodes_of(job, picture)}
    try:
        known = reservations.read()
    except Unreachable:
        return []
    last = float("inf") if job.limit is None else picture.taken + job.limit
    return [
        one
        for one in known
        if one.name != job.reservation
        and one.end > picture.taken
        and one.start < last
        and own.intersection(one.names)
    ]


def reservation(job: Job, picture: Picture) -> Explanation:
    """It waits for the reservation that it asks for."""
    try:
        found = [one for one in reservations.read() if one.name == job.reservation]
        problem = "Slurm does not show it"
    except Unreachable as error:
        found, problem = [], str(error)
    evidence = [
        f"it is {one.state.lower() or 'in an unknown state'}, from {moment(one.start)} to {moment(one.end)}, "
        f"on {one.nodes or 'unknown nodes'}"
        for one in found
    ]
    return Explanation(
        f"It waits for its reservation {job.reservation or 'of unknown name'}.",
        evidence or [f"when it opens is unknown ({problem})"],
        f"It starts inside the reservation; scontrol update jobid={job.job_id} reservationname= leaves it.",
    )


def partition_limit(job: Job, picture: Picture) -> Explanation:
    """It asks for more than its partition allows."""
    evidence = [
        f"partition {name}: MaxTime={found.get('MaxTime', 'unknown')} "
        f"MaxNodes={found.get('MaxNodes', 'unknown')} nodes={found.get('TotalNodes', 'unknown')}"
        for name, found in _partitions(job).items()
    ]
    evidence += [
        f"this job asks for {span(job.limit) if job.limit else 'no time limit'} on {job.nodes} node(s)",
    ]
    return Explanation(
        "It asks for more than its partition allows.",
        evidence,
        "Ask for less, or choose another partition.",
    )


def partition_down(job: Job, picture: Picture) -> Explanation:
    """Its partition takes no jobs, or starts none."""
    evidence = [
        f"partition {name} is {found.get('State', 'in an unknown state').lower()}"
        for name, found in _partitions(job).items()
    ]
    return Explanation("Its partition is closed.", evidence, "Choose another one, or wait for the admins.")


def licences(job: Job, picture: Picture) -> Explanation:
    """Its licences are in use: how many of each."""
    try:
        text = command.run(["scontrol", "show", "licenses", "--oneliner"])
    except Unreachable as error:
        text = ""
        evidence = [f"how many are free is unknown ({error})"]
    else:
        evidence = []
    for name in re.findall(r"[^,:@ ]+", re.sub(r":\d+", "", job.licences)):
        line = next((pairs(row) for row in text.splitlines() if pairs(row).get("LicenseName") == name), {})
        evidence.append(f"{name}: {line.get('Used', 'unknown')} of {line.get('Total', 'unknown')} in use")
    return Explanation(f"All licences it needs are in use ({job.licences or 'which is unknown'}).", evidence)


def _partitions(job: Job) -> dict[str, dict[str, str]]:
    """What scontrol says of each partition of the job, {} of one that it does not show."""
    found = {}
    for name in job.partition.split(","):
        try:
            found[name] = pairs(command.run(["scontrol", "show", "partition", name, "--oneliner"]))
        except Unreachable:
            found[name] = {}
    return found
