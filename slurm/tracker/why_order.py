"""Why a job waits for its turn, for another job, or for somebody's hand: one function per family."""

import re
import time

from slurm.tracker import command, sacct
from slurm.tracker.command import Unreachable
from slurm.tracker.explanation import Explanation, nodes_of, occupants, request, shares_partition
from slurm.tracker.families import family_of
from slurm.tracker.poll import Picture
from slurm.tracker.show import moment, span
from slurm.tracker.squeue import Job


def new(job: Job, picture: Picture) -> Explanation:
    return Explanation("The scheduler has not looked at it yet.", [], "Ask again in a minute.")


def resources(job: Job, picture: Picture) -> Explanation:
    nodes = nodes_of(job, picture)
    usable = [node for node in nodes if node.available]
    free = {key: sum(node.free[key] for node in usable) for key in ("cpus", "gpus", "memory")}
    idle = sum(node.cpus_used == 0 for node in usable)
    whole = ", all of them to itself" if exclusive(job) else ""
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
    return Explanation(sentence, evidence, "A shorter time limit or fewer nodes lets it fit into a gap.")


def exclusive(job: Job) -> bool:
    """Whether the job shares its nodes with nobody; False where squeue does not say."""
    try:
        said = command.run(["squeue", "--noheader", "-j", str(job.job_id), "-O", "OverSubscribe"])
    except Unreachable:
        return False
    return said.split()[:1] == ["NO"]


def priority(job: Job, picture: Picture) -> Explanation:
    own = (job.priority, -(job.submit or 0), -job.job_id)
    # A job that waits for something else than its turn takes nobody's place.
    rivals = [
        other
        for other in picture.jobs
        if other.pending
        and shares_partition(other, job)
        and family_of(other.reason).key in ("resources", "priority")
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
            f"its priority is {job.priority}; at the head stands {first.shown_id} of {first.user} with "
            f"{first.priority}{tie}, which needs {request(first)}"
        ],
        "Nothing is wrong; a shorter time limit may let it start in a gap before them.",
    )


def begin(job: Job, picture: Picture) -> Explanation:
    left = span(max(0, job.eligible - time.time())) if job.eligible else "an unknown time"
    sentence = f"It may not start before {moment(job.eligible)}, in {left}."
    if job.restarts:
        evidence = [f"it was requeued ({job.restarts} time(s)); Slurm lets a requeued job wait for a moment"]
        return Explanation(sentence, evidence, "It starts by itself.")
    return Explanation(
        sentence, ["submitted with --begin"], f"scontrol update jobid={job.job_id} starttime=now"
    )


def array(job: Job, picture: Picture) -> Explanation:
    running_tasks = [o for o in picture.jobs if o.array_id == job.array_id and o.running]
    most = re.search(r"%(\d+)", job.shown_id)
    sentence = f"Its array runs at most {most[1] if most else 'some'} tasks at once; {job.tasks} still wait."
    return Explanation(
        sentence,
        [f"{len(running_tasks)} of its tasks run now"],
        f"scontrol update jobid={job.array_id} arraytaskthrottle=N lets more run.",
    )


# ---- held, waiting for others


def held_user(job: Job, picture: Picture) -> Explanation:
    return Explanation(
        f"Its owner {job.user} holds it.",
        ["its priority is 0" if job.priority == 0 else f"its priority is {job.priority}"],
        f"scontrol release {job.job_id}",
    )


def held_admin(job: Job, picture: Picture) -> Explanation:
    return Explanation("An admin holds it.", [], "Only an admin can release it: ask them why.")


def requeue_held(job: Job, picture: Picture) -> Explanation:
    return Explanation(
        "It failed to start or was requeued too often, and Slurm holds it.",
        [f"restarts so far: {job.restarts}"],
        f"Read its log ({job.stdout or 'unknown place'}), then scontrol release {job.job_id}.",
    )


def dependency(job: Job, picture: Picture) -> Explanation:
    evidence = predecessors(job, picture)
    sentence = "It waits for another job." if len(evidence) == 1 else "It waits for other jobs."
    if "singleton" in job.dependency:
        sentence = f"It waits until no other job of {job.user} with the same name runs."
    return Explanation(sentence, evidence or ["which one is unknown"], "It starts by itself after that.")


def never(job: Job, picture: Picture) -> Explanation:
    return Explanation(
        "It can never start: a job it depends on ended in another way than it asked for.",
        predecessors(job, picture) or ["which one is unknown"],
        f"scancel {job.job_id}, repair the first job and submit both again.",
    )


def predecessors(job: Job, picture: Picture) -> list[str]:
    """One line on each job that this one depends on: what is asked of it, and its state."""
    by_id = {other.job_id: other for other in picture.jobs} | {
        other.array_id: other for other in picture.jobs if other.array_id
    }
    lines = []
    for kind, number, said in re.findall(r"(\w+):(\d+)\w*(?:\+\d+)?(?:\((\w+)\))?", job.dependency):
        other = by_id.get(int(number))
        state = other.state.lower() if other else ended_state(number)
        lines.append(f"{kind} job {number}: {state}{f' ({said})' if said else ''}")
    return lines


def ended_state(number: str) -> str:
    """How a job that left the queue ended, by accounting."""
    separator = command.separator()
    try:
        lives = sacct.parse(command.run(sacct.command(separator, "-j", number)), separator)
    except Unreachable as error:
        return f"its end is unknown ({error})"
    if not lives:
        return "its end is unknown (accounting does not know it)"
    return f"{lives[-1].state.lower()} with exit code {lives[-1].exit_code or 'unknown'}"


# ---- starting, failing


def failed(job: Job, picture: Picture) -> Explanation:
    return Explanation(
        "An earlier start of it failed.",
        [f"restarts so far: {job.restarts}", f"its log: {job.stdout or 'unknown'}"],
        "Read the log before releasing it.",
    )


def starting(job: Job, picture: Picture) -> Explanation:
    return Explanation("Its nodes are being made ready.", [], "It starts by itself in a few minutes.")


def staging(job: Job, picture: Picture) -> Explanation:
    return Explanation("Its data is being moved to the burst buffer.", [], "It starts by itself.")


def deadline(job: Job, picture: Picture) -> Explanation:
    return Explanation("It can no longer end before its deadline or limit.", [], f"scancel {job.job_id}")


def unknown(job: Job, picture: Picture) -> Explanation:
    return Explanation(
        f"Slurm gives a reason this tool does not know: {job.reason}.", ["what it means is unknown here"]
    )
