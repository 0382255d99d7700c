"""`elm-queue save | stop | cancel | retry RUN|ID`: what changes a job.

A run of this suite reads signals: USR2 = save at the next step and requeue under the same id, TERM = save and
exit. They go to the job's steps, so that every rank hears them. A run that a group shares (`run.group`) is
asked by a file in its folder instead, which needs no right in Slurm: it saves and goes on, or saves and ends.
"""

from __future__ import annotations

import re

from conf.errors import InputError
from elm_megatron.run import requests
from slurm.tracker import command
from slurm.tracker.command import Unreachable
from slurm.tracker.fields import host_names
from slurm.tracker.squeue import Job
from slurm.tracker.targets import Target

BAD_NODE_STATES = frozenset({"NODE_FAIL", "BOOT_FAIL"})


def save(target: Target) -> str:
    """Ask a running run to save; it goes on, after a requeue where only a signal can ask it.

    Raises:
        InputError: it does not run, is no run of this suite, or is somebody else's.
        Unreachable: Slurm refuses.
    """
    if _asked_by_file(target, requests.SAVE):
        return f"{target.job_id or target.text}: asked to save at its next step; it goes on"
    job = _running_run(target, "save")
    _scancel(job, "--signal=USR2")
    return f"{job.shown_id}: asked to save at its next step; it is requeued under the same id and goes on"


def stop(target: Target) -> str:
    """Ask a running run to save and end.

    Raises:
        InputError: it does not run, is no run of this suite, or is somebody else's.
        Unreachable: Slurm refuses.
    """
    if _asked_by_file(target, requests.STOP):
        return f"{target.job_id or target.text}: asked to save at its next step and to end"
    job = _running_run(target, "stop")
    _scancel(job, "--signal=TERM")
    return f"{job.shown_id}: asked to save at its next step and to end; the same launch command goes on later"


def cancel(target: Target) -> str:
    """Cancel a job, with all its waiting tasks.

    Raises:
        InputError: it neither waits nor runs.
        Unreachable: Slurm refuses.
    """
    job = _live(target, "cancel")
    _scancel(job)
    said = f"{job.shown_id}: cancelled"
    if job.running and target.run:
        return (
            f"{said}; a run saves only if that takes less than Slurm's KillWait: elm-queue stop lets it save"
        )
    return said


def retry(target: Target, without: str = "") -> str:
    """Start a job again without the nodes that failed it.

    Args:
        target: a waiting or held job, or one that ended within the last minutes.
        without: nodes to leave out; "" for those of its attempts that lost a node.

    Raises:
        InputError: no bad node is known, or the controller has forgotten the job.
        Unreachable: Slurm refuses.
    """
    job_id = target.job_id
    if job_id is None:
        raise InputError(f"run: {target.text} has no Slurm job")
    nodes = without or _lost_nodes(job_id)
    if not nodes:
        raise InputError(
            f"retry: no attempt of {job_id} lost a node; name the nodes to leave out with --without"
        )
    if not host_names(nodes) or not re.fullmatch(r"[A-Za-z0-9._,\[\]-]+", nodes):
        raise InputError(
            f"--without: found {nodes!r}; allowed are nodes as Slurm writes them, as n3 or n[1-2]"
        )
    shown = _shown(job_id)
    if shown is None:
        raise InputError(
            f"retry: the controller has forgotten job {job_id}; launch again with cluster.exclude={nodes}"
            + (f" run.name={target.run.path.name}" if target.run else "")
        )
    if shown.get("JobState") == "RUNNING":
        raise InputError(
            f"retry: job {job_id} runs; elm-queue save {job_id} first, or elm-queue cancel {job_id}"
        )
    known = shown.get("ExcNodeList", "")
    excluded = ",".join([*([known] if known not in ("", "(null)") else []), nodes])
    if shown.get("JobState") not in ("PENDING", "REQUEUE_HOLD", "SPECIAL_EXIT"):
        command.run(["scontrol", "requeuehold", job_id])
    command.run(["scontrol", "update", f"jobid={job_id}", f"excnodelist={excluded}"])
    command.run(["scontrol", "release", job_id])
    return f"{job_id}: waits again, without {excluded}"


def _lost_nodes(job_id: str) -> str:
    """The nodes that attempts of a job lost, by accounting."""
    text = command.run(["sacct", "-X", "-D", "-n", "-P", "-j", job_id, "--format=State,NodeList"])
    rows = (line.partition("|") for line in text.splitlines())
    found = [_down(nodes) for state, _, nodes in rows if state.split(" ")[0] in BAD_NODE_STATES]
    return ",".join(dict.fromkeys(found))


def _down(nodes: str) -> str:
    """Those of the nodes that are down or drained now; all of them when none is."""
    text = command.run(["sinfo", "-h", "-N", "-n", nodes, "-t", "down,drain,fail,no_respond", "-o", "%N"])
    return ",".join(dict.fromkeys(text.split())) or nodes


def _shown(job_id: str) -> dict[str, str] | None:
    """What the controller knows of a job; None when it has forgotten it."""
    try:
        text = command.run(["scontrol", "show", "job", job_id, "--oneliner"])
    except Unreachable as error:
        if "Invalid job id" in str(error):
            return None
        raise
    return dict(re.findall(r"(\w+)=(\S*)", text))


def _asked_by_file(target: Target, verb: str) -> bool:
    """Ask a run that a group shares; its job need not be shown to this user (PrivateData=jobs).

    Returns:
        False for a run that does not read files, and for one that does not run.
    """
    if target.run is None or not requests.can_ask(target.run.path):
        return False
    if target.record().get("state") != "running" or not (target.job is None or target.job.state == "RUNNING"):
        return False
    requests.ask(target.run.path, verb)
    return True


def _running_run(target: Target, verb: str) -> Job:
    job = _live(target, verb)
    if target.run is None:
        raise InputError(f"{verb}: {job.shown_id} is no run of this suite, which would read the request")
    if job.state != "RUNNING":
        raise InputError(f"{verb}: {job.shown_id} is {job.state.lower()}; only a running run can {verb}")
    return job


def _live(target: Target, verb: str) -> Job:
    if target.job is not None:
        return target.job
    state = target.record().get("state")
    known = (
        f"; run.json says {state}"
        if state
        else f"; see elm-queue eff {target.job_id}"
        if target.job_id
        else ""
    )
    raise InputError(f"{verb}: {target.text} neither waits nor runs in Slurm's queue{known}")


def _scancel(job: Job, *options: str) -> None:
    where = ["-M", job.cluster] if job.cluster and job.cluster != command.cluster_name() else []
    try:
        command.run(["scancel", *where, *options, job_argument(job)])
    except Unreachable as error:
        if "denied" not in str(error):
            raise
        raise InputError(
            f"{job.shown_id} is a job of {job.user}: others may ask a run to save or stop that its owner "
            "shares with a group of theirs (run.group)"
        ) from error


def job_argument(job: Job) -> str:
    """A job as scancel and scontrol take it: 4711_[3-9%2] is 4711_[3-9]."""
    return re.sub(r"%\d+", "", job.shown_id)
