"""What a cluster's YAML says beside what the live Slurm says: the half of the doctor that asks Slurm."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from pathlib import Path

from conf.durations import seconds
from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from slurm.doctor.finding import OK, PROBLEM, WARNING, Check, Finding, environment, output
from slurm.doctor.site_traits import traits
from slurm.tracker.fields import gpus_of_gres


def controller(cluster: ClusterConfig) -> list[Finding]:
    """Whether a Slurm answers at all; without one the other questions have no answer."""
    todo = f"run this on a login node of {cluster.name}"
    if cluster.slurm_conf and not Path(cluster.slurm_conf).is_file():
        found = f"{cluster.slurm_conf} is not there"
        return [Finding(PROBLEM, "Slurm", found, "start one: python -m slurm.devcluster up")]
    if shutil.which("scontrol") is None:
        return [Finding(PROBLEM, "Slurm", "no scontrol on PATH", todo)]
    said = output(["scontrol", "ping"], cluster, check=False)
    up = re.search(r"Slurmctld\(\w+\) at (\S+) is UP", said)
    if not up:
        answer = " ".join(said.split())[:200] or "scontrol ping says nothing"
        return [Finding(PROBLEM, "Slurm", f"no controller answers ({answer})", todo)]
    version = output(["scontrol", "--version"], cluster).strip()
    return [Finding(OK, "Slurm", f"{version}, controller {up[1]}")]


def mpi(cluster: ClusterConfig) -> list[Finding]:
    """The MPI flavour of the YAML against those srun offers."""
    text = output(["srun", "--mpi=list"], cluster, check=False)
    offered = re.findall(r"^\s+(?:\w+: )?([a-z0-9_]+)$", text, re.M)
    level = OK if cluster.mpi in offered else PROBLEM
    todo = f"set cluster.mpi to one of {', '.join(offered) or 'none offered'}"
    return [Finding(level, "MPI", f"cluster.mpi={cluster.mpi}, srun offers {', '.join(offered)}", todo)]


def accounts(cluster: ClusterConfig) -> list[Finding]:
    """The YAML's account among those this login may use."""
    command = ["sacctmgr", "-n", "-P", "show", "assoc", f"user={getpass.getuser()}", "format=account"]
    try:
        mine = sorted(set(output(command, cluster).split()))
    except InputError as error:  # an error's words are no names of accounts
        return [Finding(WARNING, "account", f"not known: {error}", "ask again when accounting answers")]
    listed = ", ".join(mine)
    if cluster.account and mine and cluster.account not in mine:
        todo = f"set cluster.account to one of {listed}"
        return [Finding(PROBLEM, "cluster.account", f"{cluster.account} is none of yours", todo)]
    if cluster.account or len(mine) < 2:
        return [Finding(OK, "account", cluster.account or listed or "none kept here")]
    return [Finding(WARNING, "account", f"you have {listed}", "set cluster.account to the one that pays")]


def partitions(cluster: ClusterConfig) -> list[Finding]:
    """The YAML's partition, limits and node sizes against `scontrol show partition` and `sinfo`."""
    findings = []
    for name in dict.fromkeys(filter(None, (cluster.partition, cluster.cpu_partition))):
        text = output(["scontrol", "show", "partition", name], cluster, check=False)
        if "PartitionName=" not in text:
            findings.append(Finding(PROBLEM, f"partition {name}", "Slurm does not know it", "see: sinfo -s"))
            continue
        fields = dict(re.findall(r"(\w+)=(\S+)", text))
        up = fields.get("State") == "UP"
        said = f"state {fields.get('State')}, {fields.get('TotalNodes')} nodes"
        findings.append(Finding(OK if up else WARNING, f"partition {name}", said, "see: sinfo -s"))
        limit, ours = fields.get("MaxTime", "UNLIMITED"), cluster.site.max_time
        if ours and limit != "UNLIMITED" and seconds(ours) > seconds(limit):
            findings.append(Finding(WARNING, "cluster.site.max_time", f"{ours}, the partition allows {limit}",
                                    f"correct conf/cluster/{cluster.name}.yaml"))  # fmt: skip
    return findings + _nodes(cluster)


def _nodes(cluster: ClusterConfig) -> list[Finding]:
    """Cores, memory and GPUs of the smallest node of the partition."""
    command = [
        "sinfo",
        "-h",
        "-N",
        "-o",
        "%c|%m|%G",
        *(["-p", cluster.partition] if cluster.partition else []),
    ]
    rows = [line.split("|") for line in output(command, cluster).splitlines() if line.count("|") == 2]
    if not rows:
        return [Finding(WARNING, "nodes", "sinfo shows none", "see: sinfo -s")]
    cores, memory = min(int(row[0]) for row in rows), min(int(row[1]) for row in rows) / 1024
    gpus = min(gpus_of_gres(row[2]) for row in rows)
    site = cluster.site
    findings = []
    for key, ours, theirs in (
        ("cores", site.cores, cores),
        ("memory_gb", site.memory_gb, memory),
        ("gpus", site.gpus, gpus),
    ):
        if ours:
            level = OK if ours <= theirs else PROBLEM
            findings.append(Finding(level, f"cluster.site.{key}", f"{ours}, nodes have {theirs:g}",
                                    f"correct conf/cluster/{cluster.name}.yaml"))  # fmt: skip
    return findings


def accounting(cluster: ClusterConfig) -> list[Finding]:
    """The time to save after a preemption, and whether accounting answers."""
    config = output(["scontrol", "show", "config"], cluster)
    wait = re.search(r"KillWait\s+= (\d+)", config)
    findings = []
    if wait:
        level = OK if int(wait[1]) >= 30 else WARNING
        findings.append(
            Finding(level, "KillWait", f"{wait[1]} s to save after a preemption", "save more often")
        )
    asked = subprocess.run(["sacct", "-X", "-n"], env=environment(cluster), capture_output=True, check=False)
    works = asked.returncode == 0
    findings.append(Finding(OK if works else WARNING, "accounting", "sacct answers" if works else "no sacct",
                            "history and efficiency need it"))  # fmt: skip
    return findings


CHECKS: tuple[Check, ...] = (mpi, partitions, accounts, accounting, traits)
