"""`why` on a real Slurm: every kind of waiting the tracker promises to explain, all in one queue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.devcluster import processes
from slurm.devcluster.cluster import DevCluster
from slurm.tracker import limits, poll, why
from slurm.tracker.why import family_of

# Case → what its explanation must say: words of the sentence, words of the evidence.
EXPECTED = {
    "resources": (
        "too little is free: it needs 3 nodes, 3 cores, 300 MiB, all of them to itself",
        "4 nodes, 3 in service, 0 of them empty",
    ),
    "priority": ("waiting job", "the first one is {resources} of root with"),
    "dependency": ("waits for another job", "afterany job {filler}: running (unfulfilled)"),
    "never": ("can never start", "afterok job {failing}: failed with exit code 3:0 (failed)"),
    "begin": ("may not start before", "submitted with --begin"),
    "held_user": ("Its owner root holds it", "its priority is 0"),
    "array": ("at most 1 tasks at once; 2 still wait", "1 of its tasks run now"),
    "association": ("A limit of account elmsmall on nodes", "account elmsmall has GrpTRES = 1 nodes"),
    "qos": ("A limit of QOS elmtiny on cores", "QOS elmtiny has GrpTRES = 2 cores"),
    "qos_user": (
        "A limit of QOS elmone on running jobs per user",
        "QOS elmone has MaxJobsPU = 1 running jobs",
    ),
    "nodes": (
        "the nodes it asks for by name are down, drained or reserved",
        "drained: disk is being swapped",
    ),
    "reservation": ("waits for its reservation elmnight", "it is inactive, from"),
}
REASONS = {
    "resources": "Resources",
    "priority": "Priority",
    "dependency": "Dependency",
    "never": "DependencyNeverSatisfied",
    "begin": "BeginTime",
    "held_user": "JobHeldUser",
    "array": "JobArrayTaskLimit",
    "association": "AssocGrpNodeLimit",
    "qos": "QOSGrpCpuLimit",
    "qos_user": "QOSMaxJobsPerUserLimit",
    "nodes": "ReqNodeNotAvail",
    "reservation": "Reservation",
}


@pytest.fixture
def limited(devcluster: DevCluster) -> Iterator[DevCluster]:
    """The cluster with a small account, two narrow QOS, one drained node and one reservation."""

    def sacctmgr(*words: str) -> None:
        devcluster.command("sacctmgr", "-i", *words)

    def delete(*words: str) -> None:
        """Refused while the end of a job that used it is not written yet."""
        answers = []

        def deleted() -> bool:
            answers.append(devcluster.command("sacctmgr", "-i", "delete", *words, check=False))
            return answers[-1].returncode == 0

        assert processes.wait_until(deleted, 30, 0.5), f"delete {words}: {answers[-1]}"

    def scontrol(*words: str) -> None:
        devcluster.command("scontrol", *words)

    sacctmgr("add", "qos", "elmtiny", "GrpTRES=cpu=2")
    sacctmgr("add", "qos", "elmone", "MaxJobsPerUser=1")
    sacctmgr("add", "account", "elmsmall", "GrpTRES=node=1")
    sacctmgr("add", "user", "root", "Account=elmsmall")
    sacctmgr("modify", "user", "root", "set", "qos+=elmtiny,elmone")
    scontrol("update", "nodename=n4", "state=drain", "reason=disk is being swapped")
    scontrol(
        *("create", "reservation", "reservationname=elmnight", "starttime=now+2hours", "duration=60"),
        *("nodes=n1", "users=root"),
    )
    yield devcluster
    devcluster.settle(60)
    scontrol("delete", "reservationname=elmnight")
    sacctmgr("modify", "user", "root", "set", "qos-=elmtiny,elmone")
    delete("user", "root", "Account=elmsmall")
    delete("account", "elmsmall")
    delete("qos", "elmtiny")
    delete("qos", "elmone")


def test_each_reason_is_explained_with_its_evidence(limited: DevCluster, submit) -> None:
    jobs = {"failing": submit(script="exit 3")}
    jobs["never"] = submit(f"--dependency=afterok:{jobs['failing']}")
    jobs["array"] = submit("--array=1-3%1", "--nodelist=n1")
    jobs["one"] = submit("--qos=elmone", "--nodelist=n1")
    jobs["qos_user"] = submit("--qos=elmone")
    jobs["begin"] = submit("--begin=now+1hour")
    jobs["held_user"] = submit("--hold")
    jobs["nodes"] = submit("--nodelist=n4")
    jobs["reservation"] = submit("--reservation=elmnight")
    jobs["association"] = submit("--account=elmsmall", "--nodes=2")
    jobs["qos"] = submit("--qos=elmtiny", "--cpus-per-task=4")
    jobs["filler"] = submit("--nodes=2", "--exclusive", "--nodelist=n2,n3")
    jobs["dependency"] = submit(f"--dependency=afterany:{jobs['filler']}")
    wait_for_reasons(limited, {"dependency": "Dependency"}, jobs)
    jobs["resources"] = submit("--nodes=3", "--exclusive")
    jobs["priority"] = submit("--nodes=3", "--exclusive")
    wait_for_reasons(limited, REASONS, jobs)

    picture = poll.picture()
    for case, (sentence, evidence) in EXPECTED.items():
        job = next(j for j in picture.jobs if jobs[case] in (str(j.job_id), str(j.array_id)) and j.pending)
        found = why.explain(job, picture)
        assert sentence in found.sentence, f"{case}: {why.text(job, found)}"
        assert evidence.format(**jobs) in "\n".join(found.evidence), f"{case}: {why.text(job, found)}"
        assert found.advice, case


def test_sacctmgr_knows_every_column_that_a_reason_names(devcluster: DevCluster) -> None:
    words = (Path(__file__).parent / "shapes" / "reasons.txt").read_text().splitlines()
    owners = {"association": "assoc", "qos": "qos"}
    asked = {
        (owners[key], limit.column)
        for reason in (line.split()[0] for line in words if not line.startswith("#"))
        if (key := family_of(reason).key) in owners and (limit := limits.limit_of(reason))
    }
    assert len(asked) > 25
    for owner, column in sorted(asked):
        devcluster.command("sacctmgr", "-n", "-P", "show", owner, f"format={column}")


def test_a_node_that_lost_its_power(devcluster: DevCluster, submit) -> None:
    devcluster.kill_node("n3")
    try:
        devcluster.command("scontrol", "update", "nodename=n3", "state=down", "reason=no power | <rack 2>")
        job = submit("--nodelist=n3")
        wait_for_reasons(devcluster, {"down": "ReqNodeNotAvail"}, {"down": job})
        text = explained(job)
        assert "It cannot start while the nodes it asks for by name are down, drained or reserved." in text
        assert "node n3 is down" in text
        assert "no power | <rack 2>" in text
    finally:
        devcluster.start("slurmd-n3")
        # Refused when the node is back by itself.
        devcluster.command("scontrol", "update", "nodename=n3", "state=resume", check=False)
    assert processes.wait_until(lambda: "It does not wait: it is running" in explained(job), 60, 0.5)


def explained(job_id: str) -> str:
    picture = poll.picture()
    job = next(job for job in picture.jobs if str(job.job_id) == job_id)
    return why.text(job, why.explain(job, picture))


def wait_for_reasons(cluster: DevCluster, wanted: dict[str, str], jobs: dict[str, str]) -> None:
    def reasons() -> dict[str, str]:
        text = cluster.command("squeue", "-h", "-t", "PENDING", "-o", "%F|%r").stdout
        found = dict(line.split("|", 1) for line in text.splitlines())
        # Slurm has two wordings for nodes that are out of service, and changes between them.
        return {case: family_of(found.get(jobs[case], "?")).key for case in wanted}

    wanted = {case: family_of(reason).key for case, reason in wanted.items()}

    assert processes.wait_until(lambda: reasons() == wanted, 40, 0.5), f"{reasons()} instead of {wanted}"
