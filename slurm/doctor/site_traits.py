"""What is special about a site, and what the suite does about it: one line per trait."""

from __future__ import annotations

import re
import socket

from conf.durations import seconds
from conf.schema.cluster import ClusterConfig
from slurm.doctor.finding import OK, WARNING, Finding, output
from slurm.tracker.fields import word


def traits(cluster: ClusterConfig) -> list[Finding]:
    """Requeue, preemption, limits, comments, tracked GPUs and networks, as the live Slurm has them."""
    said = output(["scontrol", "show", "config"], cluster)
    config = {key: value.strip() for key, value in re.findall(r"^(\w+)\s*=\s?(.*)$", said, re.M)}
    return [
        *_requeue(config),
        *_partition(cluster, config),
        *_comments(config),
        *_tracked(cluster, config),
        *_interface(cluster),
    ]


def _requeue(config: dict[str, str]) -> list[Finding]:
    if config.get("JobRequeue") == "0":
        found = "0; jobs ask for --requeue themselves, and where it is refused hand in a successor"
        return [Finding(OK, "JobRequeue", found)]
    return [Finding(OK, "JobRequeue", "1; a job starts again under its id")]


def _partition(cluster: ClusterConfig, config: dict[str, str]) -> list[Finding]:
    """Preemption and the time limit of the partition that jobs go to."""
    lines = output(["scontrol", "--all", "-o", "show", "partition"], cluster).splitlines()
    found = []
    for line in lines:
        fields = dict(re.findall(r"(\w+)=(\S+)", line))
        name = fields.get("PartitionName", "")
        chosen = cluster.partition.split(",") if cluster.partition else []
        if name not in chosen and (chosen or fields.get("Default") != "YES"):
            continue
        found += [_preemption(name, fields, config), _limit(cluster, name, fields)]
        if "NO" in config.get("EnforcePartLimits", "") and fields.get("MaxTime", "UNLIMITED") != "UNLIMITED":
            what = f"EnforcePartLimits=NO: a job over the limits of {name} waits for ever"
            found.append(Finding(OK, "limits", f"{what}; the same command with other settings replaces it"))
    return found


def _preemption(name: str, fields: dict[str, str], config: dict[str, str]) -> Finding:
    mode = fields.get("PreemptMode") or config.get("PreemptMode", "OFF")
    grace = fields.get("GraceTime", "0")
    told = f"PreemptMode of {name}: {mode}" + (f", GraceTime {grace} s" if grace not in ("", "0") else "")
    if "CANCEL" in mode:
        return Finding(OK, "preemption", f"{told}; a preempted job saves and hands in a successor")
    if "SUSPEND" in mode:
        todo = "raise train.stall_seconds, if a job stands still longer than that"
        return Finding(WARNING, "preemption", f"{told}; a suspended job stands still with its memory", todo)
    if "REQUEUE" in mode:
        return Finding(OK, "preemption", f"{told}; a preempted job saves and starts again under its id")
    return Finding(OK, "preemption", f"{told}; jobs there are not preempted")


def _limit(cluster: ClusterConfig, name: str, fields: dict[str, str]) -> Finding:
    default, most = fields.get("DefaultTime", "NONE"), fields.get("MaxTime", "UNLIMITED")
    told = f"DefaultTime of {name}: {default}, MaxTime {most}"
    if cluster.time:
        return Finding(OK, "time limit", f"{told}; jobs ask for cluster.time={cluster.time}")
    limit = seconds(default) or seconds(most)
    if limit and limit <= cluster.signal_seconds:
        todo = f"set cluster.time, or a cluster.signal_seconds below {limit} s"
        return Finding(WARNING, "time limit", f"{told}; the signal to save would come before the start", todo)
    return Finding(OK, "time limit", f"{told}; without a cluster.time that limit holds")


def _comments(config: dict[str, str]) -> list[Finding]:
    flags = word(config.get("AccountingStoreFlags", ""))
    if "job_comment" in flags.lower():
        return [Finding(OK, "comments", "kept by accounting, so that history finds the runs of ended jobs")]
    todo = "an admin sets AccountingStoreFlags=job_comment; until then ended jobs join runs by name and time"
    return [Finding(WARNING, "comments", "accounting keeps none (AccountingStoreFlags)", todo)]


def _tracked(cluster: ClusterConfig, config: dict[str, str]) -> list[Finding]:
    if "gres/gpu" in config.get("AccountingStorageTRES", ""):
        return [Finding(OK, "tracked GPUs", "accounting counts gres/gpu")]
    if not cluster.site.gpus:
        return []
    todo = "an admin adds gres/gpu to AccountingStorageTRES; until then GPUs are counted as asked for"
    return [Finding(WARNING, "tracked GPUs", "accounting does not count gres/gpu", todo)]


def _interface(cluster: ClusterConfig) -> list[Finding]:
    """The network on which ranks meet; nodes of one type have the same names, login nodes often others."""
    here = ", ".join(name for _, name in socket.if_nameindex() if name != "lo")
    if cluster.interface:
        found = f"cluster.interface={cluster.interface} on the nodes; this node has {here}"
        return [
            Finding(OK, "network", f"{found}; see `srun -p {cluster.partition or 'PARTITION'} ip -br addr`")
        ]
    found = f"no cluster.interface: ranks try every address of rank 0's node; this node has {here}"
    return [Finding(OK, "network", found)]
