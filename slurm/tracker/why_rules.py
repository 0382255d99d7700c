"""Why a job is not allowed to start where it wants: limits, nodes, partitions, reservations, licences."""

import re
from collections.abc import Callable

from slurm.tracker import command, limits
from slurm.tracker.command import Unreachable
from slurm.tracker.explanation import Explanation, nodes_of, request
from slurm.tracker.fields import host_names, word
from slurm.tracker.poll import Picture
from slurm.tracker.show import span
from slurm.tracker.squeue import Job


def association(job: Job, picture: Picture) -> Explanation:
    return limited(job, picture, f"account {job.account or 'unknown'}", limits.association_limits, False)


def qos(job: Job, picture: Picture) -> Explanation:
    return limited(job, picture, f"QOS {job.qos or 'unknown'}", limits.qos_limits, True)


def limited(
    job: Job,
    picture: Picture,
    owner: str,
    look_up: Callable[[Job, limits.Limit], list[tuple[str, str]]],
    by_qos: bool,
) -> Explanation:
    limit = limits.limit_of(job.reason)
    if limit is None:
        return Explanation(f"A limit of {owner} stops it.", ["which limit is unknown"], WAIT_OR_ASK)
    evidence = []
    try:
        found = look_up(job, limit)
    except Unreachable as error:
        found = []
        evidence.append(f"the limit's value is unknown ({error})")
    else:
        if not found:
            evidence.append(f"the limit's value is unknown: sacctmgr shows no {limit.column} for {owner}")
    evidence += [
        f"{whose} has {limit.column} = {limits.allowed(value, limit)}"
        + (f" per {limit.per}" if limit.per and not limit.column.endswith(("PU", "PA")) else "")
        for whose, value in found
    ]
    wanted, used = limits.amount(job, limit), limits.held(job, limit, picture.jobs, by_qos)
    if wanted is not None:
        unit = "MiB" if limit.entry == "mem" else limit.what
        together = f"; running jobs under it hold {used}" if limit.group and used is not None else ""
        evidence.append(f"this job asks for {wanted} {unit}{together}")
    sentence = f"A limit of {owner} on {limit.what}{f' per {limit.per}' if limit.per else ''} stops it."
    return Explanation(sentence, evidence, WAIT_OR_ASK)


WAIT_OR_ASK = (
    "It starts when the account's other jobs end, if it fits at all; else ask for less or for more room."
)


# ---- nodes, partitions, reservations


def nodes(job: Job, picture: Picture) -> Explanation:
    named = re.search(r"UnavailableNodes:(\S+)", job.reason)
    names = set(host_names(named[1])) if named else set(host_names(job.wanted_nodes))
    candidates = [n for n in nodes_of(job, picture) if not names or n.name in names]
    closed = [node for node in candidates if not node.available]
    evidence = [
        f"node {node.name} is {node.state}" + (f": {node.reason}" if node.reason else "")
        for node in closed[:8]
    ]
    if len(closed) > 8:
        evidence.append(f"and {len(closed) - 8} more")
    if not closed:
        evidence.append("which node is missing is unknown; it may be reserved or held for other jobs")
    what = "the nodes it asks for by name" if job.wanted_nodes else "nodes it needs"
    return Explanation(
        f"It cannot start while {what} are down, drained or reserved.",
        evidence,
        "Ask for other nodes, or ask an admin when they come back.",
    )


def reservation(job: Job, picture: Picture) -> Explanation:
    try:
        found = keys(command.run(["scontrol", "show", "reservation", job.reservation, "--oneliner"]))
    except Unreachable as error:
        found, problem = {}, str(error)
    else:
        problem = "Slurm does not show it"
    if not found:
        evidence = [f"when it opens is unknown ({problem})"]
    else:
        evidence = [
            f"it is {word(found.get('State', '')).lower() or 'in an unknown state'}, from "
            f"{found.get('StartTime', 'unknown')} to {found.get('EndTime', 'unknown')} UTC, "
            f"on {found.get('Nodes', 'unknown nodes')}"
        ]
    return Explanation(
        f"It waits for its reservation {job.reservation or 'of unknown name'}.",
        evidence,
        f"It starts inside the reservation; scontrol update jobid={job.job_id} reservationname= leaves it.",
    )


def reservation_gone(job: Job, picture: Picture) -> Explanation:
    return Explanation(
        f"Its reservation {job.reservation or 'of unknown name'} does not exist any more.",
        [],
        f"scontrol update jobid={job.job_id} reservationname= lets it run outside.",
    )


def partition_limit(job: Job, picture: Picture) -> Explanation:
    found = partition(job)
    evidence = [
        f"partition {job.partition}: MaxTime={found.get('MaxTime', 'unknown')} "
        f"MaxNodes={found.get('MaxNodes', 'unknown')} nodes={found.get('TotalNodes', 'unknown')}",
        f"this job asks for {span(job.limit) if job.limit else 'no time limit'} on {job.nodes} node(s)",
    ]
    return Explanation(
        "It asks for more than its partition allows.",
        evidence,
        "Ask for less, or choose another partition.",
    )


def partition_down(job: Job, picture: Picture) -> Explanation:
    found = partition(job)
    evidence = [f"partition {job.partition} is {found.get('State', 'in an unknown state').lower()}"]
    return Explanation("Its partition is closed.", evidence, "Choose another one, or wait for the admins.")


def licences(job: Job, picture: Picture) -> Explanation:
    try:
        text = command.run(["scontrol", "show", "licenses", "--oneliner"])
    except Unreachable as error:
        text = ""
        evidence = [f"how many are free is unknown ({error})"]
    else:
        evidence = []
    for name in re.findall(r"[^,:@ ]+", re.sub(r":\d+", "", job.licences)):
        line = next((keys(row) for row in text.splitlines() if keys(row).get("LicenseName") == name), {})
        evidence.append(f"{name}: {line.get('Used', 'unknown')} of {line.get('Total', 'unknown')} in use")
    return Explanation(f"All licences it needs are in use ({job.licences or 'which is unknown'}).", evidence)


def constraints(job: Job, picture: Picture) -> Explanation:
    return Explanation(
        "No node of its partition has what it asks for.",
        [f"it needs {request(job)}" + (f" with feature {job.features}" if job.features else "")],
        "Compare with sinfo -o '%N %c %m %G %f'; it will not start as it is.",
    )


def not_allowed(job: Job, picture: Picture) -> Explanation:
    return Explanation(
        "Its account or QOS may not be used here.",
        [f"account {job.account or 'unknown'}, QOS {job.qos or 'unknown'}, partition {job.partition}"],
        "sacctmgr show assoc user=$USER lists what you may use.",
    )


def partition(job: Job) -> dict[str, str]:
    try:
        return keys(command.run(["scontrol", "show", "partition", job.partition, "--oneliner"]))
    except Unreachable:
        return {}


def keys(text: str) -> dict[str, str]:
    """`Name=value` pairs of one line of scontrol, for things that admins name."""
    return dict(pair.split("=", 1) for pair in text.split() if "=" in pair)
