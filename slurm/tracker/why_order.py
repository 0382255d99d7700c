"""Why a job waits for its turn, for another job or for a time, and what a job does that does not wait."""

from __future__ import annotations

import re
import time

from slurm.tracker import command, sacct, why_rules
from slurm.tracker.command import Unreachable
from slurm.tracker.explanation import Explanation, nodes_of, occupants, request, shares_partition
from slurm.tracker.fields import host_names
from slurm.tracker.poll import Picture
from slurm.tracker.show import moment, span
from slurm.tracker.squeue import Job


def resources(job: Job, picture: Picture) -> Explanation:
    """It is next in line: what is free, who ends next, and what reservations take."""
    nodes = nodes_of(job, picture)
    usable = [node for node in nodes if node.available]
    free = {key: sum(node.free[key] for node in usable) for key in ("cpus", "gpus", "memory")}
    idle = sum(node.cpus_used == 0 for node in usable)
    whole = ", all of them to itself" if _exclusive(job) else ""
    sentence = f"It is next in line, but too little is free: it needs {request(job)}{whole}."
    evidence = [
        f"partition {job.partition} has {len(nodes)} nodes, {len(usable)} in service, {idle} of them empty; "
        f"free there: {free['cpus']} cores, {free['gpus']} GPUs, {free['memory']} MiB"
        if nodes
        else f"which nodes partition {job.partition} has is unknown"
    ]
    ends = sorted((other.end, other.shown_id) for other in occupants(job, picture) if other.end)
    if ends:
        listed = ", ".join(f"{shown} by {moment(end)}" for end, shown in ends[:3])
        evidence.append(f"at the latest these end next: {listed}")
    evidence += why_rules.reserved_from(job, picture)
    return Explanation(sentence, evidence, "A shorter time limit or fewer nodes lets it fit into a gap.")


def _exclusive(job: Job) -> bool:
    """Whether the job shares its nodes with nobody; False where squeue does not say."""
    try:
        said = command.run(["squeue", "--noheader", "-j", str(job.job_id), "-O", "OverSubscribe"])
    except Unreachable:
        return False
    return said.split()[:1] == ["NO"]


def priority(job: Job, picture: Picture) -> Explanation:
    """Others go first: how many, and who is at the head."""
    own = (job.priority, -(job.submit or 0), -job.job_id)
    # A job that waits for something else than its turn takes nobody's place.
    rivals = [
        other
        for other in picture.jobs
        if other.pending
        and shares_partition(other, job)
        and other.waits_for_turn
        and (other.priority, -(other.submit or 0), -other.job_id) > own
    ]
    if not rivals:
        return Explanation(
            "The scheduler puts other jobs first; which ones is unknown.",
            [f"no waiting job of a higher priority than {job.priority} is visible in {job.partition}"],
            "It may be a job of another partition on the same nodes, or one hidden from you.",
        )
    first = max(rivals, key=lambda other: (other.priority, -(other.submit or 0)))
    count = sum(other.tasks for other in rivals)
    tie = ", handed in earlier" if first.priority == job.priority else ""
    return Explanation(
        f"{count} waiting {'job goes' if count == 1 else 'jobs go'} first in partition {job.partition}.",
        [
            f"its priority is {job.priority}; the first one is {first.shown_id} of {first.user} with "
            f"{first.priority}{tie}, which needs {request(first)}"
        ],
        "Nothing is wrong; a shorter time limit may let it start in a gap before them.",
    )


def begin(job: Job, picture: Picture) -> Explanation:
    """Its earliest start is still to come."""
    left = span(max(0, job.eligible - time.time())) if job.eligible else "an unknown time"
    sentence = f"It may not start before {moment(job.eligible)}, in {left}."
    if job.restarts:
        evidence = [f"it was requeued ({job.restarts} time(s)); Slurm lets a requeued job wait for a moment"]
        return Explanation(sentence, evidence, "It starts by itself.")
    return Explanation(
        sentence, ["submitted with --begin"], f"scontrol update jobid={job.job_id} starttime=now"
    )


def array(job: Job, picture: Picture) -> Explanation:
    """Its array has as many running tasks as it may."""
    running_tasks = [o for o in picture.jobs if o.array_id == job.array_id and o.running]
    most = re.search(r"%(\d+)", job.shown_id)
    sentence = f"Its array runs at most {most[1] if most else 'some'} tasks at once; {job.tasks} still wait."
    return Explanation(
        sentence,
        [f"{len(running_tasks)} of its tasks run now"],
        f"scontrol update jobid={job.array_id} arraytaskthrottle=N lets more run.",
    )


def dependency(job: Job, picture: Picture) -> Explanation:
    """It waits for other jobs: which, and what they do."""
    evidence = _predecessors(job, picture)
    sentence = "It waits for another job." if len(evidence) == 1 else "It waits for other jobs."
    if "singleton" in job.dependency:
        sentence = f"It waits until no other job of {job.user} with the same name runs."
    return Explanation(sentence, evidence or ["which one is unknown"], "It starts by itself after that.")


def never(job: Job, picture: Picture) -> Explanation:
    """A job it depends on ended in another way."""
    return Explanation(
        "It can never start: a job it depends on ended in another way than it asked for.",
        _predecessors(job, picture) or ["which one is unknown"],
        f"scancel {job.job_id}, repair the first job and submit both again.",
    )


def _predecessors(job: Job, picture: Picture) -> list[str]:
    """One line on each job that this one depends on: what is asked of it, and its state."""
    by_id = {other.job_id: other for other in picture.jobs} | {
        other.array_id: other for other in picture.jobs if other.array_id
    }
    lines = []
    for kind, number, said in re.findall(r"(\w+):(\d+)\w*(?:\+\d+)?(?:\((\w+)\))?", job.dependency):
        other = by_id.get(int(number))
        state = other.state.lower() if other else _ended_state(number)
        lines.append(f"{kind} job {number}: {state}{f' ({said})' if said else ''}")
    return lines


def _ended_state(number: str) -> str:
    """How a job that left the queue ended, by accounting."""
    separator = command.separator()
    try:
        attempts = sacct.parse(command.run(sacct.command(separator, "-j", number)), separator)
    except Unreachable as error:
        return f"its end is unknown ({error})"
    if not attempts:
        return "its end is unknown (accounting does not know it)"
    return f"{attempts[-1].state.lower()} with exit code {attempts[-1].exit_code or 'unknown'}"


# ---- jobs that do not wait

# A job's end is confirmed by its nodes within seconds; after this long something is in the way.
LONG_COMPLETING_SECONDS = 300


def started(job: Job, picture: Picture) -> Explanation:
    """What a job does that does not wait: it runs, was suspended, or its end takes long."""
    where = f" on {job.node_list}" if job.node_list else ""
    attempts = [f"it was requeued {job.restarts} time(s) under the same id"] if job.restarts else []
    if job.state == "SUSPENDED":
        return _suspended(job, picture, where, attempts)
    if job.state == "COMPLETING":
        return _completing(job, picture, where, attempts)
    sentence = f"It does not wait: it is {job.state.lower()} since {moment(job.start)}{where}."
    left = f"its time limit ends it at {moment(job.end)}" if job.end else "it has no time limit"
    return Explanation(sentence, [*attempts, left])


def _suspended(job: Job, picture: Picture, where: str, attempts: list[str]) -> Explanation:
    own = set(host_names(job.node_list))
    others = [
        other
        for other in picture.jobs
        if other.state == "RUNNING" and own.intersection(host_names(other.node_list))
    ]
    evidence = [
        f"{other.shown_id} of {other.user} (partition {other.partition}) runs on {other.node_list}"
        for other in others[:3]
    ]
    return Explanation(
        f"It does not run at the moment: it is suspended{where}, and keeps its memory there.",
        attempts + (evidence or ["no other job runs on its nodes: an admin may have suspended it"]),
        "It goes on when the jobs of the higher partition end; an admin can do scontrol resume "
        f"{job.job_id}.",
    )


def _completing(job: Job, picture: Picture, where: str, attempts: list[str]) -> Explanation:
    ended = picture.taken - job.end if job.end else 0
    if ended < LONG_COMPLETING_SECONDS:
        return Explanation(f"It does not wait: it has ended and leaves its nodes{where}.", attempts)
    own = set(host_names(job.node_list))
    evidence = [why_rules.state_of(node) for node in picture.nodes if node.name in own]
    return Explanation(
        f"It ended {span(ended)} ago, but its nodes have not confirmed the end{where}.",
        attempts + (evidence[:8] or ["the state of its nodes is unknown"]),
        "A process that cannot be killed, a hanging epilog or a node that does not answer keeps it there. "
        "Tell an admin, who can set the node down and resume it.",
    )
