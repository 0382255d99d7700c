"""Is this machine, and the cluster as it is today, what the configuration says? One line per check.

    python launch/doctor.py cluster=snellius

Nothing is changed and nothing submitted. Each line is ok, a warning or a problem, and says what to do.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path

from packaging.requirements import Requirement

from data_prep.errors import InputError
from elm_megatron.cluster import ClusterConfig, seconds
from slurm import batch

OK, WARNING, PROBLEM = "ok", "warning", "problem"
FREE_GIB = 20  # a run of the large model keeps three checkpoints of about 11 GB
PACKAGES = {"torch": "train", "megatron-core": "train", "sentencepiece": "data", "kitoken": "data",
            "mpi4py": "data", "transformers": "hf", "peft": "hf"}  # fmt: skip


@dataclass
class DoctorConfig:
    """Everything of `python launch/doctor.py`."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)


@dataclass
class Finding:
    """One line: how it is, what was looked at, what was found, and what to do about it."""

    level: str
    what: str
    found: str
    todo: str = ""


def examine(cluster: ClusterConfig) -> list[Finding]:
    """Every check, in the order of the report; a check that breaks is a finding too."""
    checks: list[Callable[[ClusterConfig], list[Finding]]] = [python, packages, gpus, apex, disk, mpi]
    if cluster.executor == "slurm":
        checks += [partitions, accounting]
    if cluster.container:
        checks.append(container)
    findings = []
    for check in checks:
        try:
            findings += check(cluster)
        except Exception as error:
            findings.append(Finding(PROBLEM, check.__name__, f"{type(error).__name__}: {error}"))
    return findings


def python(cluster: ClusterConfig) -> list[Finding]:
    """Version and place of the interpreter ranks will use."""
    version = ".".join(map(str, sys.version_info[:3]))
    level = OK if sys.version_info >= (3, 11) else PROBLEM
    found = [Finding(level, "python", f"{version}, {sys.executable}", "use Python 3.11 or newer")]
    if cluster.executor == "slurm" and sys.executable.startswith(("/tmp/", "/scratch-local/")):
        found.append(
            Finding(WARNING, "python", "lies on a folder of this node", "make .venv on shared storage")
        )
    return found


def packages(cluster: ClusterConfig) -> list[Finding]:
    """Installed versions against constraints.txt."""
    pinned = _pins((batch.ROOT / "constraints.txt").read_text())
    findings = []
    for name, extra in PACKAGES.items():
        try:
            have = metadata.version(name)
        except metadata.PackageNotFoundError:
            findings.append(
                Finding(WARNING, name, "not installed", f"pip install -c constraints.txt -e .[{extra}]")
            )
            continue
        same = have.split("+")[0] == pinned.get(name, have)
        todo = f"tested with {pinned.get(name)}"
        findings.append(Finding(OK if same else WARNING, name, have, todo))
    engine = util.find_spec("transformer_engine") is not None
    if engine or cluster.device == "gpu":
        todo = "slower without: pip install transformer_engine[pytorch], or use cluster.container"
        findings.append(
            Finding(OK if engine else WARNING, "transformer-engine", "found" if engine else "absent", todo)
        )
    return findings


def _pins(constraints: str) -> dict[str, str]:
    """The versions that hold for this Python."""
    lines = (line for line in constraints.splitlines() if line and not line.startswith("#"))
    wanted = [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate()]
    return {one.name: str(one.specifier).removeprefix("==") for one in wanted}


def apex(cluster: ClusterConfig) -> list[Finding]:
    """NVIDIA's apex by what it can do; the package of that name on PyPI is a web toolkit."""
    if util.find_spec("apex") is None:
        return []
    if util.find_spec("apex.optimizers") is not None:
        return [Finding(OK, "apex", "NVIDIA's, with its optimizers")]
    return [Finding(WARNING, "apex", "an unrelated package of that name", "pip uninstall apex")]


def gpus(cluster: ClusterConfig) -> list[Finding]:
    """GPUs and NCCL, asked in a process of its own since this one holds no torch."""
    if util.find_spec("torch") is None:
        return []
    code = (
        "import torch; n = torch.cuda.device_count(); "
        "print(n, torch.cuda.get_device_name(0).replace(' ', '_') if n else 'none', "
        "'.'.join(map(str, torch.cuda.nccl.version())) if n else 'none')"
    )
    count, name, nccl = _output([sys.executable, "-c", code]).split()[:3]
    if count == "0":
        level = WARNING if cluster.device == "gpu" and cluster.executor == "local" else OK
        return [
            Finding(
                level, "GPUs", "none on this node", "a login node has none; on a GPU node check nvidia-smi"
            )
        ]
    return [Finding(OK, "GPUs", f"{count} × {name}, NCCL {nccl}")]


def disk(cluster: ClusterConfig) -> list[Finding]:
    """Free space and quota where runs and data will lie, and scratch that forgets."""
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 2**30
    findings = [Finding(OK if free > FREE_GIB else WARNING, "disk", f"{free:,.0f} GiB free in {here}",
                        f"a large run wants {FREE_GIB} GiB")]  # fmt: skip
    if shutil.which("quota"):
        text = _output(["quota", "-s"], check=False).strip()
        if "*" in text:  # quota marks an exceeded limit with a star
            findings.append(Finding(PROBLEM, "quota", "a limit is exceeded", "see: quota -s"))
    scratch = cluster.site.scratch
    if scratch and str(here).startswith(scratch):
        days = cluster.site.scratch_days
        findings.append(Finding(WARNING, "scratch", f"{scratch} forgets files after {days} days",
                                "export finished models elsewhere"))  # fmt: skip
    return findings


def mpi(cluster: ClusterConfig) -> list[Finding]:
    """The MPI library against the flavours srun offers."""
    if cluster.executor == "local":
        beside = Path(sys.executable).with_name("mpiexec").exists() or shutil.which("mpiexec") is not None
        return [Finding(OK if beside else WARNING, "MPI", "mpiexec found" if beside else "no mpiexec",
                        "preprocess.ranks above 1 needs: pip install mpich mpi4py")]  # fmt: skip
    text = _output(["srun", "--mpi=list"], cluster, check=False)
    offered = re.findall(r"^\s+(?:\w+: )?([a-z0-9_]+)$", text, re.M)
    level = OK if cluster.mpi in offered else PROBLEM
    todo = f"set cluster.mpi to one of {', '.join(offered) or 'none offered'}"
    return [Finding(level, "MPI", f"cluster.mpi={cluster.mpi}, srun offers {', '.join(offered)}", todo)]


def partitions(cluster: ClusterConfig) -> list[Finding]:
    """The YAML's partition, limits and node sizes against `scontrol show partition` and `sinfo`."""
    findings = []
    for name in dict.fromkeys(filter(None, (cluster.partition, cluster.cpu_partition))):
        text = _output(["scontrol", "show", "partition", name], cluster, check=False)
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
    rows = [line.split("|") for line in _output(command, cluster).splitlines() if line.count("|") == 2]
    if not rows:
        return [Finding(WARNING, "nodes", "sinfo shows none", "see: sinfo -s")]
    cores, memory = min(int(row[0]) for row in rows), min(int(row[1]) for row in rows) / 1024
    gpus = min(sum(map(int, re.findall(r"gpu(?::[A-Za-z]\w*)?:(\d+)", row[2]))) for row in rows)
    site = cluster.site
    findings = []
    for key, ours, theirs in (
        ("cores", site.cores, cores),
        ("memory_gb", site.memory_gb, memory),
        ("gpus", site.gpus, gpus),
    ):
        if ours is not None:
            level = OK if ours <= theirs else PROBLEM
            findings.append(Finding(level, f"cluster.site.{key}", f"{ours}, nodes have {theirs:g}",
                                    f"correct conf/cluster/{cluster.name}.yaml"))  # fmt: skip
    return findings


def accounting(cluster: ClusterConfig) -> list[Finding]:
    """Preemption and requeue settings, and whether accounting answers."""
    config = _output(["scontrol", "show", "config"], cluster)
    wait = re.search(r"KillWait\s+= (\d+)", config)
    requeue = re.search(r"JobRequeue\s+= (\d)", config)
    findings = []
    if wait:
        level = OK if int(wait[1]) >= 30 else WARNING
        findings.append(
            Finding(level, "KillWait", f"{wait[1]} s to save after a preemption", "save more often")
        )
    if requeue and requeue[1] == "0":
        findings.append(Finding(OK, "JobRequeue", "0; jobs ask for --requeue themselves"))
    works = (
        subprocess.run(["sacct", "-X", "-n"], env=_environment(cluster), capture_output=True).returncode == 0
    )
    findings.append(Finding(OK if works else WARNING, "accounting", "sacct answers" if works else "no sacct",
                            "history and efficiency need it"))  # fmt: skip
    return findings


def container(cluster: ClusterConfig) -> list[Finding]:
    """The image, and something to run it with."""
    assert cluster.container
    found = []
    if shutil.which("apptainer") is None:
        found.append(Finding(WARNING, "apptainer", "not on PATH here", "compute nodes need it"))
    exists = Path(cluster.container).exists()
    said = cluster.container + ("" if exists else " is not there")
    todo = "build it: apptainer build elm.sif slurm/container/elm.def"
    found.append(Finding(OK if exists else PROBLEM, "container", said, todo))
    return found


def _environment(cluster: ClusterConfig | None) -> dict[str, str]:
    return batch.environment(cluster, os.environ) if cluster else dict(os.environ)


def _output(command: list[str], cluster: ClusterConfig | None = None, check: bool = True) -> str:
    try:
        done = subprocess.run(command, env=_environment(cluster), capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise InputError(f"{command[0]} is not on PATH: this machine is no part of a Slurm cluster") from None
    if check and done.returncode != 0:
        raise InputError(f"{' '.join(command[:3])}: {' '.join(done.stderr.split())}")
    return done.stdout + done.stderr


def show(findings: list[Finding]) -> int:
    """Print the report; the exit status is 1 when there is a problem."""
    for item in findings:
        todo = f" → {item.todo}" if item.todo and item.level != OK else ""
        print(f"{item.level:<8} {item.what}: {item.found}{todo}")
    return int(any(item.level == PROBLEM for item in findings))
