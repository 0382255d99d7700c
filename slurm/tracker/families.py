"""Slurm's reasons for waiting, gathered into families that are explained alike.

The words are those of squeue's manual under "JOB REASON CODES" and of the messages that the scheduler puts in
their place (as "Nodes required for job are DOWN, DRAINED or reserved …").
"""

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Family:
    """One family: its key, a few words for the list, and the pattern of its reasons."""

    key: str
    short: str
    pattern: str


FAMILIES = (
    Family("new", "not looked at yet", r"|None"),
    Family("never", "dependency failed", r"DependencyNeverSatisfied"),
    Family("dependency", "waits for a job", r"Dependency|JobDependency"),
    Family("begin", "begins later", r"BeginTime|BeginTimeNotMet"),
    Family("requeue_held", "held after failures", r"JobHoldMaxRequeue|MaxRequeue|.*requeued.*held.*"),
    Family("held_user", "held by user", r"JobHeldUser"),
    Family("held_admin", "held by admin", r"JobHeldAdmin|Held.*"),
    Family("array", "array task limit", r"JobArrayTaskLimit"),
    Family("reservation_gone", "reservation gone", r"ReservationDeleted|ReservationInvalid"),
    Family("reservation", "waits for reservation", r"Reservation"),
    Family(
        "nodes",
        "nodes not available",
        r"ReqNodeNotAvail.*|NodeDown|NodesDown|Nodes required.*|Required_?Node.*|FrontEndDown|NodeNotAvail.*",
    ),
    Family("association", "account limit", r"Assoc.*|MaxMemPerLimit|AccountingPolicy"),
    Family("qos", "QOS limit", r"QOS(?!NotAllowed).*|Max\w+Per(Account|User)"),
    Family("partition_limit", "partition limit", r"Partition(Node|Time|Config)\w*"),
    Family("partition_down", "partition closed", r"Partition(Down|Inactive).*|InactiveLimit"),
    Family("licences", "licences in use", r"Licenses|RemoteLicense.*"),
    Family("constraints", "no such nodes", r"BadConstraints|ConstraintsNot.*|Constraints.*"),
    Family(
        "not_allowed", "not allowed", r"InvalidAccount|InvalidQOS|AccountNotAllowed|QOSNotAllowed|Invalid.*"
    ),
    Family(
        "failed",
        "start failed",
        r"JobLaunchFailure|NonZeroExitCode|SystemFailure|RaisedSignal.*|launch.*failed.*|Prolog.*fail.*|OutOfMemory",
    ),
    Family("starting", "starting up", r"Cleaning|Prolog|Configuring|NodesReboot\w*|.*[Bb]oot.*|Power\w*"),
    Family("staging", "moving data", r"BurstBuffer\w*|StagingIn.*"),
    Family("deadline", "cannot meet deadline", r"Dead[Ll]ine\w*|TimeLimit"),
    Family("resources", "needs free nodes", r"Resources"),
    Family("priority", "others go first", r"Priority|SchedDefer\w*|FedJobLock"),
)
UNKNOWN = Family("unknown", "other reason", r".*")


@cache
def family_of(reason: str) -> Family:
    """The family of a reason as squeue writes it; `UNKNOWN` for a word of a newer release."""
    reason = reason.strip().strip("()")
    first = reason.split(",")[0].strip()
    for family in FAMILIES:
        if re.fullmatch(family.pattern, first) or (reason and re.fullmatch(family.pattern, reason)):
            return family
    return UNKNOWN
