"""Is this machine, and the cluster as it is today, what the configuration says? One line per check.

    python launch/doctor.py cluster=snellius

Nothing is changed and nothing submitted. Each line is ok, a warning or a problem, and says what to do.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path

from packaging.requirements import Requirement

from conf.schema.cluster import ClusterConfig
from slurm.doctor import live_slurm as doctor_slurm
from slurm.doctor.finding import OK, PROBLEM, WARNING, Check, Finding, output
from slurm.jobs.container import ROOT

FREE_GIB = 20  # a run of the large model keeps three checkpoints of about 11 GB
PACKAGES = {"numpy": "data", "sentencepiece": "data", "kitoken": "data", "mpi4py": "data", "torch": "train",
            "megatron-core": "train", "transformers": "hf", "peft": "hf", "hydra-core": "dev",
            "submitit": "dev"}  # fmt: skip


@dataclass
class DoctorConfig:
    """Everything of `python launch/doctor.py`."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def check(self) -> None:
        """Refuse what no cluster can be."""
        self.cluster.check()


def examine(cluster: ClusterConfig) -> list[Finding]:
    """Every check, in the order of the report; a check that breaks is a finding too."""
    here: list[Check] = [python, packages, transformer_engine, gpus, apex, disk]
    here += [mpiexec] if cluster.executor == "local" else []
    here += [container] if cluster.container else []
    findings = _ask(here, cluster)
    if cluster.executor != "local":
        answer = _ask([doctor_slurm.controller], cluster)
        findings += answer
        if answer[0].level == OK:
            findings += _ask(doctor_slurm.CHECKS, cluster)
    return findings


def _ask(checks: Sequence[Check], cluster: ClusterConfig) -> list[Finding]:
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
    pinned = _pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
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
    return findings


def transformer_engine(cluster: ClusterConfig) -> list[Finding]:
    """Transformer Engine, imported in a process of its own. Its extension is built for one torch."""
    what = "transformer-engine"
    wanted = _pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))["transformer_engine"]
    todo = (
        f"a third slower without: pip install --no-build-isolation transformer_engine[pytorch]=={wanted} "
        "beside the torch of constraints.txt (needs nvcc), or use cluster.container"
    )
    if util.find_spec("transformer_engine") is None:
        return [Finding(WARNING, what, "absent", todo)] if cluster.device == "gpu" else []
    code = "from elm_megatron.model import te_import; te_import.main()"
    found = json.loads(output([sys.executable, "-c", code]).splitlines()[0])
    version = found["version"] or "unknown version"
    if found["failure"]:
        return [Finding(WARNING, what, f"{version} cannot be imported: {found['failure']}", todo)]
    return [Finding(OK, what, version)]


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
    found = json.loads(output([sys.executable, "-m", "elm_megatron.model.device"]).splitlines()[0])
    if not found["count"]:
        level = WARNING if cluster.device == "gpu" and cluster.executor == "local" else OK
        return [
            Finding(
                level, "GPUs", "none on this node", "a login node has none; on a GPU node check nvidia-smi"
            )
        ]
    return [Finding(OK, "GPUs", f"{found['count']} × {found['name']}, NCCL {found['nccl']}")]


def disk(cluster: ClusterConfig) -> list[Finding]:
    """Free space and quota where runs and data will lie, and scratch that forgets."""
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 2**30
    findings = [Finding(OK if free > FREE_GIB else WARNING, "disk", f"{free:,.0f} GiB free in {here}",
                        f"a large run wants {FREE_GIB} GiB")]  # fmt: skip
    if shutil.which("quota"):
        text = output(["quota", "-s"], check=False).strip()
        if "*" in text:  # quota marks an exceeded limit with a star
            findings.append(Finding(PROBLEM, "quota", "a limit is exceeded", "see: quota -s"))
    scratch = cluster.site.scratch
    if scratch and str(here).startswith(scratch):
        days = cluster.site.scratch_days
        findings.append(Finding(WARNING, "scratch", f"{scratch} forgets files after {days} days",
                                "export finished models elsewhere"))  # fmt: skip
    return findings


def mpiexec(cluster: ClusterConfig) -> list[Finding]:
    """What starts several ranks of preprocess on this machine."""
    beside = Path(sys.executable).with_name("mpiexec").exists() or shutil.which("mpiexec") is not None
    return [Finding(OK if beside else WARNING, "MPI", "mpiexec found" if beside else "no mpiexec",
                    "preprocess.ranks above 1 needs: pip install mpich mpi4py")]  # fmt: skip


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


def show(findings: list[Finding]) -> int:
    """Print the report; the exit status is 1 when there is a problem."""
    for item in findings:
        todo = f" → {item.todo}" if item.todo and item.level != OK else ""
        print(f"{item.level:<8} {item.what}: {item.found}{todo}")
    return int(any(item.level == PROBLEM for item in findings))
