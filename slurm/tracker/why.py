"""`elm-queue why ID`: why a job waits, on what evidence, and what to do about it.

`FAMILIES` is the whole list of what Slurm can say. A family is one entry: its key, a few words for the
list, the pattern of Slurm's reasons, and how it is explained: a `Says` where the job's own fields make the
sentence, else a function of `why_order.py` (waiting for a turn, a job, a time) or of `why_rules.py` (limits,
nodes, reservations).

The words are those of squeue's manual under "JOB REASON CODES" and "JOB STATE CODES", and of the messages
that the scheduler writes in their place, as "Nodes required for job are DOWN, DRAINED or reserved".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from slurm.tracker import why_order, why_rules
from slurm.tracker.explanation import Explanation, Says
from slurm.tracker.logs import log_path
from slurm.tracker.poll import Picture
from slurm.tracker.runs import progress_of
from slurm.tracker.show import escaped, moment
from slurm.tracker.squeue import Job


@dataclass(frozen=True)
class Family:
    """Reasons that are explained alike.

    Attributes:
        key: its name.
        short: a few words for the list.
        pattern: regular expression of its reasons.
        explain: how it is explained.
        state: regular expression of states that belong here whatever the reason is.
    """

    key: str
    short: str
    pattern: str
    explain: Callable[[Job, Picture], Explanation]
    state: str = ""


BY_ITSELF = "It starts by itself."
RELEASE = "Read the log, mend the cause, then: scontrol release {id}"

FAMILIES = (
    Family(
        "special_exit",
        "held by special exit",
        r"",
        Says(
            "It ended in a way that was declared special, and Slurm holds it for a person to look at.",
            ("restarts so far: {restarts}", "its log: {log}"),
            RELEASE,
        ),
        state="SPECIAL_EXIT",
    ),
    Family(
        "requeue_hold",
        "requeued and held",
        r"job requeued in held state",
        Says(
            "It was put back into the queue and is held, by scontrol requeuehold or by its own batch script.",
            ("restarts so far: {restarts}", "its log: {log}"),
            RELEASE,
        ),
        state="REQUEUE_HOLD",
    ),
    Family(
        "reservation_gone",
        "reservation gone",
        r"ReservationDeleted|ReservationInvalid",
        Says(
            "Its reservation {reservation} does not exist any more.",
            (),
            "scontrol update jobid={id} reservationname= lets it run outside.",
        ),
        state="RESV_DEL_HOLD",
    ),
    Family(
        "new",
        "not looked at yet",
        r"|None",
        Says("The scheduler has not looked at it yet.", (), "Ask again in a minute."),
    ),
    Family("never", "dependency failed", r"DependencyNeverSatisfied", why_order.never),
    Family("dependency", "waits for a job", r"Dependency|JobDependency", why_order.dependency),
    Family("begin", "begins later", r"BeginTime|BeginTimeNotMet", why_order.begin),
    Family(
        "requeue_held",
        "held after failures",
        r"JobHoldMaxRequeue|MaxRequeue|.*requeued.*held.*",
        Says(
            "It failed to start or was requeued too often, and Slurm holds it.",
            ("restarts so far: {restarts}", "its log: {log}"),
            RELEASE,
        ),
    ),
    Family(
        "held_user",
        "held by user",
        r"JobHeldUser",
        Says("Its owner {user} holds it.", ("its priority is {priority}",), "scontrol release {id}"),
    ),
    Family(
        "held_admin",
        "held by admin",
        r"JobHeldAdmin|Held.*",
        Says("An admin holds it.", (), "Only an admin can release it: ask them why."),
    ),
    Family("array", "array task limit", r"JobArrayTaskLimit", why_order.array),
    Family("reservation", "waits for reservation", r"Reservation", why_rules.reservation),
    Family("maintenance", "before maintenance", r".*[Rr]eserved for maintenance.*", why_rules.maintenance),
    Family(
        "nodes",
        "nodes not available",
        r"ReqNodeNotAvail.*|NodeDown|NodesDown|Nodes required.*|Required_?Node.*|FrontEndDown|NodeNotAvail.*",
        why_rules.nodes,
    ),
    Family("association", "account limit", r"Assoc.*|MaxMemPerLimit|AccountingPolicy", why_rules.association),
    Family("qos", "QOS limit", r"QOS(?!NotAllowed).*|Max\w+Per(Account|User)", why_rules.qos),
    Family(
        "partition_limit", "partition limit", r"Partition(Node|Time|Config)\w*", why_rules.partition_limit
    ),
    Family(
        "partition_down",
        "partition closed",
        r"Partition(Down|Inactive).*|InactiveLimit",
        why_rules.partition_down,
    ),
    Family("licences", "licences in use", r"Licenses|RemoteLicense.*", why_rules.licences),
    Family(
        "constraints",
        "no such nodes",
        r"BadConstraints|ConstraintsNot.*|Constraints.*",
        Says(
            "No node of its partition has what it asks for.",
            ("it needs {request}",),
            "Compare with sinfo -o '%N %c %m %G %f'; it will not start as it is.",
        ),
    ),
    Family(
        "not_allowed",
        "not allowed",
        r"InvalidAccount|InvalidQOS|AccountNotAllowed|QOSNotAllowed|Invalid.*",
        Says(
            "Its account or QOS may not be used here.",
            ("account {account}, QOS {qos}, partition {partition}",),
            "sacctmgr show assoc user=$USER lists what you may use.",
        ),
    ),
    Family(
        "failed",
        "start failed",
        r"JobLaunchFailure|NonZeroExitCode|SystemFailure|RaisedSignal.*|launch.*failed.*|Prolog.*fail.*|OutOfMemory",
        Says(
            "An earlier start of it failed.",
            ("restarts so far: {restarts}", "its log: {log}"),
            "Read the log before releasing it.",
        ),
    ),
    Family(
        "starting",
        "starting up",
        r"Cleaning|Prolog|Configuring|NodesReboot\w*|.*[Bb]oot.*|Power\w*",
        Says("Its nodes are being made ready.", (), "It starts by itself in a few minutes."),
    ),
    Family(
        "staging",
        "moving data",
        r"BurstBuffer\w*|StagingIn.*",
        Says("Its data is being moved to the burst buffer.", (), BY_ITSELF),
    ),
    Family(
        "deadline",
        "cannot meet deadline",
        r"Dead[Ll]ine\w*|TimeLimit",
        Says("It can no longer end before its deadline or limit.", (), "scancel {id}"),
    ),
    Family("resources", "needs free nodes", r"Resources", why_order.resources),
    Family("priority", "others go first", r"Priority|SchedDefer\w*|FedJobLock", why_order.priority),
)
UNKNOWN = Family(
    "unknown",
    "other reason",
    r".*",
    Says("Slurm gives a reason this tool does not know: {reason}.", ("what it means is unknown here",), ""),
)


@cache
def family_of(reason: str, state: str = "PENDING") -> Family:
    """The family of a reason as squeue writes it; `UNKNOWN` for a word of a newer release."""
    for family in FAMILIES:
        if family.state and re.fullmatch(family.state, state):
            return family
    reason = reason.strip().strip("()")
    first = reason.split(",")[0].strip()
    for words in (reason, first):
        for family in FAMILIES:
            if re.fullmatch(family.pattern, words) and (family.pattern or not family.state):
                return family
    return UNKNOWN


def explain(job: Job, picture: Picture) -> Explanation:
    """Explain one job of the picture."""
    if not job.pending:
        return why_order.started(job, picture)
    family = family_of(job.reason, job.state)
    found = family.explain(job, picture)
    found.evidence += _of_our_run(job)
    found.evidence.append(f"Slurm's own word: {job.reason or 'None'}")
    if job.start and job.start > picture.taken and family.key != "begin":
        found.evidence.append(f"the scheduler expects a start at {moment(job.start)}")
    return found


def _of_our_run(job: Job) -> list[str]:
    """What run.json says of a run that was held or stopped, and its log."""
    run = progress_of(job.comment, job.user)
    if run is None or not run.reason:
        return []
    return [f"run.json says {run.state}: {run.reason}", f"its log: {log_path(job)}"]


def text(job: Job, found: Explanation) -> str:
    """The explanation as it is printed."""
    lines = [f"{job.shown_id}: {found.sentence}", *(f"  - {line}" for line in dict.fromkeys(found.evidence))]
    if found.advice:
        lines.append(f"  do: {found.advice}")
    return "\n".join(map(escaped, lines))
