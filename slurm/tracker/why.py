"""`elm-queue why ID`: why a job waits, on what evidence, and what to do about it.

Each family of reasons (`families.py`) has one function, in `why_order.py` or `why_rules.py`. Evidence comes
from the shared picture; limits, reservations, licences and finished jobs are asked for when the family needs
them. What cannot be found out is said to be unknown.
"""

from collections.abc import Callable

from slurm.tracker import why_order, why_rules
from slurm.tracker.explanation import Explanation
from slurm.tracker.families import FAMILIES, UNKNOWN, family_of
from slurm.tracker.poll import Picture
from slurm.tracker.show import escaped, moment
from slurm.tracker.squeue import Job

EXPLAIN: dict[str, Callable[[Job, Picture], Explanation]] = {
    family.key: getattr(why_order, family.key, None) or getattr(why_rules, family.key)
    for family in (*FAMILIES, UNKNOWN)
}


def explain(job: Job, picture: Picture) -> Explanation:
    """Explains one job of the picture."""
    if not job.pending:
        return running(job)
    family = family_of(job.reason).key
    found = EXPLAIN[family](job, picture)
    found.evidence.append(f"Slurm's own word: {job.reason or 'None'}")
    if job.start and job.start > picture.taken and family != "begin":
        found.evidence.append(f"the scheduler expects a start at {moment(job.start)}")
    return found


def running(job: Job) -> Explanation:
    where = f" on {job.node_list}" if job.node_list else ""
    sentence = f"It does not wait: it is {job.state.lower()} since {moment(job.start)}{where}."
    lives = [f"it was requeued {job.restarts} time(s) under the same id"] if job.restarts else []
    left = f"its time limit ends it at {moment(job.end)}" if job.end else "it has no time limit"
    return Explanation(sentence, [*lives, left])


def text(job: Job, found: Explanation) -> str:
    """The explanation as it is printed."""
    lines = [f"{job.shown_id}: {found.sentence}", *(f"  - {line}" for line in found.evidence)]
    if found.advice:
        lines.append(f"  do: {found.advice}")
    return "\n".join(map(escaped, lines))
