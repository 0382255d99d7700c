"""Reasons are sorted into families, each family is explained, and what is not known is said to be unknown."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from slurm.tracker import command, limits, poll, why
from slurm.tracker.command import Unreachable
from slurm.tracker.nodes import Node
from slurm.tracker.poll import Picture
from slurm.tracker.squeue import Job
from slurm.tracker.why import FAMILIES, UNKNOWN, family_of

SHAPES = Path(__file__).parent / "shapes"
CLOSED = "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions"


@pytest.fixture
def picture(fake_slurm, rows) -> Picture:
    fake_slurm.answer(
        [
            rows(1, State="RUNNING", Reason="None", EndTime="2026-03-01T12:00:00", NodeList="n1"),
            rows(2, Reason="Resources", PriorityLong="300", NumNodes="2"),
            rows(3, Reason="Priority", PriorityLong="200", UserName="ben"),
            rows(4, Reason="JobHeldUser", PriorityLong="900"),
            rows(5, PriorityLong="100", Licenses="matlab:2", Dependency="afterok:1(unfulfilled),afterany:77"),
        ],
        [
            {"NodeList": "n1", "StateLong": "allocated", "CPUsState": "16/0/0/16", "Gres": "gpu:4"}
            | {"GresUsed": "gpu:4", "Memory": "1000", "AllocMem": "1000", "Partition": "low*"},
            {"NodeList": "n2", "StateLong": "down*", "CPUsState": "0/0/16/16", "Gres": "gpu:4"}
            | {"GresUsed": "gpu:0", "Memory": "1000", "AllocMem": "0", "Partition": "low*"}
            | {"Reason": "Not responding"},
        ],
    )
    return poll.picture()


def job(picture: Picture, reason: str, job_id: int = 5) -> Job:
    found = next(job for job in picture.jobs if job.job_id == job_id)
    found.reason = reason
    return found


@pytest.mark.parametrize(
    ("reason", "family"),
    [
        ("None", "new"),
        ("", "new"),
        ("(Resources)", "resources"),
        ("Priority", "priority"),
        ("Dependency", "dependency"),
        ("DependencyNeverSatisfied", "never"),
        ("BeginTime", "begin"),
        ("JobHeldUser", "held_user"),
        ("job requeued in held state", "requeue_hold"),
        ("JobHeldAdmin", "held_admin"),
        ("JobHoldMaxRequeue", "requeue_held"),
        ("launch failed requeued held", "requeue_held"),
        ("JobArrayTaskLimit", "array"),
        ("AssocGrpCPUMinutesLimit", "association"),
        ("AssocMaxJobsLimit", "association"),
        ("QOSMaxGRESPerUser", "qos"),
        ("QOSGrpBillingMinutes", "qos"),
        ("QOSNotAllowed", "not_allowed"),
        ("InvalidAccount", "not_allowed"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-3]", "nodes"),
        (CLOSED, "nodes"),
        ("NodeDown", "nodes"),
        ("Reservation", "reservation"),
        ("ReservationDeleted", "reservation_gone"),
        ("PartitionTimeLimit", "partition_limit"),
        ("PartitionNodeLimit", "partition_limit"),
        ("PartitionDown", "partition_down"),
        ("Licenses", "licences"),
        ("BadConstraints", "constraints"),
        ("NonZeroExitCode", "failed"),
        ("RaisedSignal:53(Real-time_signal_19)", "failed"),
        ("Cleaning", "starting"),
        ("BurstBufferStageIn", "staging"),
        ("DeadLine", "deadline"),
        ("SomethingOfRelease99", "unknown"),
    ],
)
def test_families(reason: str, family: str) -> None:
    assert family_of(reason).key == family


REASONS = [
    line.split()[0] for line in (SHAPES / "reasons.txt").read_text().splitlines() if not line.startswith("#")
]
# Of power saving, MPI ports and NVIDIA's fabric, and two of a machine that is no more.
STRANGE = {"MaxPoweredUpNodes", "MpiPortsBusy", "NvidiaImexChannels", "BlockMaxError", "BlockFreeAction"}


def test_every_reason_of_four_releases_has_a_family() -> None:
    assert len(REASONS) > 200
    assert {reason for reason in REASONS if family_of(reason) is UNKNOWN} == STRANGE


def test_every_limit_of_four_releases_has_a_column() -> None:
    # Burst buffers and resources of unknown name have no entry to look for, and these words name no limit.
    vague = {"AccountingPolicy", "MaxMemPerLimit", "QOSUsageThreshold"}
    columns = {
        "GrpTRES",
        "GrpTRESMins",
        "GrpTRESRunMins",
        "GrpJobs",
        "GrpSubmit",
        "GrpWall",
        "MaxJobs",
        "MaxSubmit",
    }
    columns |= {"MaxTRES", "MaxTRESMins", "MaxTRESPerNode", "MaxWall", "MinTRES"}
    columns |= {f"Max{what}P{who}" for what in ("Jobs", "Submit", "TRES", "TRESRunMins") for who in "UA"}
    for reason in REASONS:
        if family_of(reason).key in ("association", "qos") and not re.search("BB|Unknown", reason):
            limit = limits.limit_of(reason)
            if limit is None:
                assert reason in vague or re.match(r"(QOS|Association)(Job|Resource|Time)Limit$", reason), (
                    reason
                )
            else:
                assert limit.column in columns, reason


def test_every_family_is_reached_and_named_once() -> None:
    reached = {family_of(reason).key for reason in REASONS} | {
        family_of("JobHeldUser", state).key for state in ("SPECIAL_EXIT", "REQUEUE_HOLD", "RESV_DEL_HOLD")
    }
    reached |= {family_of(reason).key for reason in MESSAGES}
    assert {family.key for family in (*FAMILIES, UNKNOWN)} - reached == set()
    assert len({family.key for family in FAMILIES}) == len({family.short for family in FAMILIES})


# What the scheduler writes in place of a reason's word.
MESSAGES = (
    "launch failed requeued held",
    "ReqNodeNotAvail, Reserved for maintenance",
    "",
    "JobHoldMaxRequeue",
    "Reservation",
)


@pytest.mark.parametrize("family", [*FAMILIES, UNKNOWN], ids=lambda family: family.key)
def test_every_family_is_explained_even_when_slurm_says_nothing_more(picture, monkeypatch, family) -> None:
    def silent(argv, timeout=60):
        raise Unreachable(f"{argv[0]} is not installed here")

    monkeypatch.setattr("slurm.tracker.command.run", silent)
    one = job(picture, "AssocGrpNodeLimit" if family.key == "association" else "X")
    one.reason = one.reason if family.key != "qos" else "QOSMaxJobsPerUserLimit"
    found = family.explain(one, picture)
    assert re.fullmatch(r"[A-Z0-9].*\.", found.sentence)
    assert "{" not in "".join([found.sentence, found.advice, *found.evidence])
    assert found.advice or family.key in ("licences", "unknown"), "what to do is said"
    if family.key in ("association", "qos", "reservation", "licences", "maintenance", "unknown"):
        assert "unknown" in "\n".join([found.sentence, *found.evidence])


def test_priority_counts_only_those_who_wait_for_their_turn(picture: Picture) -> None:
    found = why.explain(job(picture, "Priority"), picture)
    assert found.sentence == "2 waiting jobs go first in partition low."
    assert "the first one is 2 of anna with 300" in found.evidence[0]


def test_resources_names_what_is_free_and_who_ends_next(picture: Picture) -> None:
    found = why.explain(job(picture, "Resources", 2), picture)
    assert "2 nodes, 1 in service, 0 of them empty; free there: 0 cores, 0 GPUs, 0 MiB" in found.evidence[0]
    assert "these end next: 1 by" in found.evidence[1]


@pytest.mark.parametrize("reason", [CLOSED, "ReqNodeNotAvail, UnavailableNodes:n2"])
def test_a_node_that_is_down_is_named(picture: Picture, reason: str) -> None:
    found = why.explain(job(picture, reason), picture)
    assert "down, drained or reserved" in found.sentence
    assert "node n2 is down*, it does not answer: Not responding" in found.evidence


def test_each_dependency_is_named(picture: Picture, monkeypatch) -> None:
    monkeypatch.setattr("slurm.tracker.command.run", lambda argv, timeout=60: "")
    found = why.explain(job(picture, "Dependency"), picture)
    assert found.evidence[0] == "afterok job 1: running (unfulfilled)"
    assert found.evidence[1] == "afterany job 77: its end is unknown (accounting does not know it)"


def test_licences_are_counted(picture: Picture, monkeypatch) -> None:
    text = "LicenseName=matlab Total=2 Used=2 Free=0 Reserved=0 Remote=no\n"
    monkeypatch.setattr("slurm.tracker.command.run", lambda argv, timeout=60: text)
    found = why.explain(job(picture, "Licenses"), picture)
    assert "matlab: 2 of 2 in use" in found.evidence


def test_a_job_that_runs_does_not_wait(picture: Picture) -> None:
    assert "It does not wait" in why.explain(job(picture, "None", 1), picture).sentence


def test_an_explanation_cannot_move_the_cursor(picture: Picture) -> None:
    one = job(picture, "Odd\x1b[2Jreason")
    assert "\x1b" not in why.text(one, why.explain(one, picture))


@pytest.mark.parametrize(
    ("reason", "column", "entry", "group"),
    [
        ("AssocGrpNodeLimit", "GrpTRES", "node", True),
        ("AssocGrpCpuLimit", "GrpTRES", "cpu", True),
        ("AssocGrpGRES", "GrpTRES", "gres/gpu", True),
        ("AssocGrpJobsLimit", "GrpJobs", "", True),
        ("AssocMaxJobsLimit", "MaxJobs", "", True),
        ("AssocGrpCPUMinutesLimit", "GrpTRESMins", "cpu", True),
        ("AssocGrpCPURunMinutesLimit", "GrpTRESRunMins", "cpu", True),
        ("AssocMaxNodePerJobLimit", "MaxTRES", "node", False),
        ("AssocMaxWallDurationPerJobLimit", "MaxWall", "", False),
        ("QOSMaxJobsPerUserLimit", "MaxJobsPU", "", True),
        ("QOSMaxCpuPerUserLimit", "MaxTRESPU", "cpu", True),
        ("QOSMaxGRESPerUser", "MaxTRESPU", "gres/gpu", True),
        ("QOSMaxNodePerAccountLimit", "MaxTRESPA", "node", True),
        ("QOSMaxCpuPerNode", "MaxTRESPerNode", "cpu", False),
        ("QOSGrpMemLimit", "GrpTRES", "mem", True),
        ("QOSMinCpuNotSatisfied", "MinTRES", "cpu", False),
        ("MaxNodePerAccount", "MaxTRESPA", "node", True),
        ("MaxJobsPerAccount", "MaxJobsPA", "", True),
        ("MaxCpuRunMinsPerUser", "MaxTRESRunMinsPU", "cpu", True),
        ("AssocGrpLicense", "GrpTRES", "license", True),
    ],
)
def test_a_reason_names_sacctmgrs_column(reason: str, column: str, entry: str, group: bool) -> None:
    found = limits.limit_of(reason)
    assert found is not None
    assert (found.column, found.entry, found.group) == (column, entry, group)


def slurm_says(monkeypatch, **answers: str) -> None:
    """Let each Slurm command, named by its words joined with an underscore, answer with a text."""

    def run(argv, timeout=60):
        for words, answer in answers.items():
            if set(words.split("_")) <= set(argv):
                return answer
        raise Unreachable(f"{argv[0]} is silent")

    monkeypatch.setattr("slurm.tracker.command.run", run)
    command.cluster_name.cache_clear()


# Cluster, Account, User, Partition, ParentName and the limit: two clusters on one slurmdbd.
ASSOCIATIONS = """\
here|root||||
here|eur|||root|{eur}
here|lab|||eur|{lab}
here|sister|||eur|
here|lab|anna|||{anna}
there|lab|||root|node=1
there|eur|||root|node=1
"""
CONFIG = "Configuration data\nClusterName             = here\n"


def limited(picture: Picture, monkeypatch, reason: str, **limits_: str) -> str:
    """Explain job 5 of anna in account lab; job 1 of ben runs on one node in its sister account."""
    levels = {"eur": "", "lab": "", "anna": ""} | limits_
    slurm_says(monkeypatch, sacctmgr_assoc=ASSOCIATIONS.format(**levels), scontrol_config=CONFIG)
    one = job(picture, reason)
    one.account = "lab"
    picture.jobs[0].account, picture.jobs[0].user = "sister", "ben"
    return why.text(one, why.explain(one, picture))


def test_a_parents_limit_counts_the_jobs_of_all_accounts_under_it(picture: Picture, monkeypatch) -> None:
    found = limited(picture, monkeypatch, "AssocGrpNodeLimit", eur="node=1", lab="node=5")
    assert "A limit of account eur on nodes stops it." in found
    assert "account eur has GrpTRES = 1 nodes; running jobs under it hold 1" in found
    assert "account lab has GrpTRES = 5 nodes; running jobs under it hold 0" in found


def test_another_cluster_of_the_same_slurmdbd_is_not_asked(picture: Picture, monkeypatch) -> None:
    found = limited(picture, monkeypatch, "AssocGrpNodeLimit")
    assert "the limit's value is unknown: sacctmgr shows no GrpTRES for account lab" in found


def test_a_limit_of_one_job_is_inherited_from_the_nearest_level(picture: Picture, monkeypatch) -> None:
    found = limited(picture, monkeypatch, "AssocMaxNodePerJobLimit", eur="node=9", anna="node=1")
    assert "A limit of user anna in account lab on nodes per job stops it." in found
    assert "account eur" not in found


QOS_ROWS = "normal|{flags}|cpu=64\nnarrow||cpu=16\n"
PARTITIONS = "PartitionName=low QoS=narrow State=UP\nPartitionName=high QoS=N/A State=UP\n"


@pytest.mark.parametrize(
    ("flags", "level"), [("", "QOS narrow of partition low"), ("DenyOnLimit,OverPartQOS", "QOS normal")]
)
def test_the_qos_of_the_partition_goes_first(picture: Picture, monkeypatch, flags: str, level: str) -> None:
    slurm_says(
        monkeypatch,
        sacctmgr_qos=QOS_ROWS.format(flags=flags),
        scontrol_partition=PARTITIONS,
        scontrol_config=CONFIG,
    )
    one = job(picture, "QOSGrpCpuLimit")
    text = why.text(one, why.explain(one, picture))
    assert f"A limit of {level} on cores stops it." in text
    assert f"{level} has GrpTRES = " in text


def test_a_maintenance_says_what_time_limit_fits_before_it(picture: Picture, monkeypatch) -> None:
    begin, end = (
        datetime.fromtimestamp(picture.taken + hours * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        for hours in (0.5, 4)
    )
    line = (
        f"ReservationName=update StartTime={begin} EndTime={end} Duration=03:30:00 Nodes=n[1-2] NodeCnt=2 "
        "Flags=MAINT,SPEC_NODES,ALL_NODES State=INACTIVE Users=root\n"
    )
    slurm_says(monkeypatch, scontrol_reservation=line, scontrol_config=CONFIG)
    one = job(picture, "ReqNodeNotAvail, Reserved for maintenance")
    text = why.text(one, why.explain(one, picture))
    assert "It would not end before the maintenance update of its nodes begins at" in text
    assert "A time limit below 3" in text or "A time limit below 29:" in text
    assert "maintenance update takes n[1-2] from" in text
    assert "maintenance update takes n[1-2]" in why.text(one, why.explain(job(picture, "Resources"), picture))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("inval", "node n2 is inval, it registered with less than slurm.conf says it has"),
        ("reserved", "node n2 is reserved, it is in a reservation"),
        ("idle*", "node n2 is idle*, it does not answer"),
    ],
)
def test_the_state_of_a_node_has_its_sentence(picture: Picture, state: str, words: str) -> None:
    node = next(node for node in picture.nodes if node.name == "n2")
    node.state, node.reason = state, ""
    assert not node.available
    one = job(picture, "ReqNodeNotAvail, UnavailableNodes:n2")
    assert words in why.text(one, why.explain(one, picture))


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ("SPECIAL_EXIT", "declared special, and Slurm holds it"),
        ("REQUEUE_HOLD", "It was put back into the queue and is held"),
        ("SUSPENDED", "It does not run at the moment: it is suspended on n1"),
        ("COMPLETING", "ended 16:40 ago, but its nodes have not confirmed the end on n1"),
    ],
)
def test_a_state_that_is_neither_waiting_nor_running_is_explained(
    picture: Picture, state: str, sentence: str
) -> None:
    one = job(picture, "None", 1)
    one.state, one.end = state, int(picture.taken) - 999
    picture.taken = one.end + 1000
    assert sentence in why.text(one, why.explain(one, picture))


@pytest.mark.parametrize(
    ("value", "entry", "found"),
    [
        ("cpu=4,gres/gpu=8", "gres/gpu", "8"),
        ("gres/gpu:h100=8,gres/nic=1", "gres/gpu", "8"),
        ("license/matlab=2,license/star=1", "license", "2, 1"),
        ("cpu=4", "node", ""),
    ],
)
def test_an_entry_of_a_column_is_found(value: str, entry: str, found: str) -> None:
    limit = limits.Limit("GrpTRES", entry, "things", True, "")
    assert limits.value_of({"GrpTRES": value}, limit) == found


def test_a_limit_nobody_shows_is_unknown(picture: Picture, monkeypatch) -> None:
    monkeypatch.setattr("slurm.tracker.command.run", lambda argv, timeout=60: "")
    found = why.explain(job(picture, "AssocGrpNodeLimit"), picture)
    assert "the limit's value is unknown: sacctmgr shows no GrpTRES for account eur" in found.evidence
    assert "which limit is unknown" in why.explain(job(picture, "AssocOddLimit"), picture).evidence


def test_free_is_what_jobs_may_take() -> None:
    node = Node("n1", ("low",), "mixed", 16, 4, 4, 1, 1000, 300, "")
    assert node.free == {"cpus": 12, "gpus": 3, "memory": 700}
