"""What a batch job asks Slurm for: a cluster's configuration as submitit's parameters; no submitit here.

The script that comes out is kept as golden texts in tests/slurm/golden/.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from elm_megatron.run import sharing
from slurm import packed_environment
from slurm.jobs.environment import exported
from slurm.tracker.notify import MAIL_TYPES

JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+,@-]{0,199}")
EXIT_STOPPED = 143  # 128 + SIGTERM, as in end.sh
END, PACKED = (Path(__file__).with_name(name) for name in ("end.sh", "packed.sh"))
# Cores and GiB of a rank: the largest model is 4 GB in fp32, and is there two or three times.
NEEDS = {"preprocess": (1, 4), "export": (4, 24), "import_hf": (4, 24), "eval": (4, 16), "serve": (4, 16)}
NEEDS["compare"] = NEEDS["eval"]
TEXT_KEYS = ("partition", "account", "qos", "constraint", "reservation", "exclude", "dependency")
TEXT_KEYS += ("mail_user", "mail_type")


def with_needs(cluster: ClusterConfig, verb: str, ranks: int) -> ClusterConfig:
    """Cores and memory for a verb that uses no GPU, where none are asked for.

    A site without defaults would give it a whole node, or too little.

    Args:
        cluster: as the verb needs it.
        verb: decides on the amounts.
        ranks: tasks of the whole job.
    """
    no_gpus = not cluster.gpus_per_node and not cluster.exclusive
    if cluster.executor != "slurm" or verb not in NEEDS or not no_gpus:
        return cluster
    cores, memory = NEEDS[verb]
    memory *= max(1, ranks // cluster.nodes)
    if cluster.site.memory_gb:
        memory = min(memory, cluster.site.memory_gb)
    return replace(
        cluster,
        cpus_per_task=cluster.cpus_per_task or cores,
        memory_gb=cluster.memory_gb or memory,
    )


def parameters(
    cluster: ClusterConfig,
    run: Path,
    name: str,
    ranks: int,
    mpi: bool,
    python: str = "python",
    code: Path | None = None,
    notify: Sequence[str] = (),
) -> dict[str, Any]:
    """Parameters for submitit's Slurm executor.

    Args:
        cluster: checked already.
        run: absolute run folder.
        name: `run.name`, the job's name.
        ranks: tasks of the whole job.
        mpi: whether ranks meet through MPI (preprocess) rather than through the run folder.
        python: the command that starts Python on a rank.
        code: the copy of the code that the job runs; None is what is installed.
        notify: how a person is told how the job goes.

    Raises:
        InputError: the ranks do not spread evenly, or the name is not one Slurm can show.
    """
    if not JOB_NAME.fullmatch(name):
        raise InputError(f"run.name={name}: must be letters, digits and . _ = + , @ - to name a Slurm job.")
    if ranks % cluster.nodes:
        raise InputError(f"cluster.nodes={cluster.nodes} does not divide the {ranks} ranks of this job.")
    per_node = ranks // cluster.nodes
    cpus = cluster.cpus_per_task or _share_of_cores(cluster, per_node)
    extra: dict[str, Any] = {key.replace("_", "-"): getattr(cluster, key) for key in TEXT_KEYS}
    if "mail" in notify and not cluster.mail_type:
        extra["mail-type"] = MAIL_TYPES
    extra["time"] = cluster.time
    extra["gpus-per-node"] = _gpus(cluster)
    extra["mem"] = _memory(cluster)
    extra["exclusive"] = cluster.exclusive or None
    extra["requeue"] = True
    extra["kill-on-invalid-dep"] = "yes" if cluster.dependency else None
    extra["comment"] = f"elm:{run}"
    if cluster.ear:
        extra |= {"ear": "on", "ear-policy": "monitoring"}  # it looks on and changes no clock
    srun = ["--open-mode=append", "--kill-on-bad-exit=1", f"--mpi={cluster.mpi if mpi else 'none'}"]
    if cluster.gpus_per_node and per_node > 1:
        # Ranks one after another on a node, and its sockets one after another: rank i of a node computes on
        # GPU i, and GPUs are numbered by socket. Slurm's default deals the ranks of a node out over sockets.
        srun.append("--distribution=block:block")
    if cpus:
        srun.append(f"--cpus-per-task={cpus}")  # Slurm 22.05 and later do not take it from the job
    return {
        "job_name": name,
        "nodes": cluster.nodes,
        "ntasks_per_node": per_node,
        "cpus_per_task": cpus,
        "signal_delay_s": cluster.signal_seconds,
        "wckey": None,
        "time": None,  # submitit's own is five minutes; without any the partition's default holds
        "setup": setup_lines(cluster, run, cpus, python, code, "webhook" in notify),
        "teardown": teardown_lines(),
        "srun_args": srun,
        "additional_parameters": {key: value for key, value in extra.items() if value is not None},
    }


def _share_of_cores(cluster: ClusterConfig, per_node: int) -> int | None:
    """Cores for one task: those that go with the GPUs asked for, or a whole exclusive node's."""
    site = cluster.site
    if site.cores is None or not (cluster.gpus_per_node or cluster.exclusive):
        return None
    share = site.cores * cluster.gpus_per_node // site.gpus if cluster.gpus_per_node else site.cores
    return max(1, share // per_node)


def _gpus(cluster: ClusterConfig) -> str | None:
    if not cluster.gpus_per_node:
        return None
    return f"{cluster.gpu_type}:{cluster.gpus_per_node}" if cluster.gpu_type else str(cluster.gpus_per_node)


def _memory(cluster: ClusterConfig) -> str | None:
    """Memory per node; with GPUs, the share of the node that goes with them."""
    memory, site = cluster.memory_gb, cluster.site
    if memory is None and cluster.gpus_per_node and site.memory_gb is not None:
        memory = site.memory_gb * cluster.gpus_per_node // site.gpus
    return None if memory is None else f"{memory}G"


def setup_lines(
    cluster: ClusterConfig,
    run: Path,
    cpus: int | None,
    python: str,
    code: Path | None = None,
    told: bool = False,
) -> list[str]:
    """Shell lines before srun: what the lines after it need, modules, the site's own lines, variables.

    Args:
        cluster: checked already.
        run: absolute run folder.
        cpus: cores of a rank.
        python: the command that starts Python on a rank.
        code: the copy of the code that the job runs; None is what is installed.
        told: whether a person is told of the start and the end (`slurm.tracker.notify`).
    """
    lines = [
        f"umask {sharing.umask_of(run):03o}",
        "trap : TERM  # srun hands it to the ranks; the lines after it still have to run",
        f"run={shlex.quote(str(run))}",
        "logs=$run/logs restart=${SLURM_RESTART_COUNT:-0}",
        'errors=$logs/${SLURM_JOB_ID}_0_log.err seen=$(stat -c %s "$logs/${SLURM_JOB_ID}_0_log.err")',
    ]
    if cluster.modules:
        # The caller's shell functions do not travel with the job; a login shell's files define this one.
        lines += ["command -v module > /dev/null || . /etc/profile", "module purge"]
        lines += [f"module load {module} || exit 1" for module in cluster.modules]
    variables = rank_variables(cluster, cpus).items()
    lines += [*cluster.setup, *(f"export {name}={shlex.quote(value)}" for name, value in variables)]
    if code:
        lines.append(f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}")
    if cluster.environment == "packed":
        lines.append(
            f"packed={shlex.quote(str(packed_environment.find()))} environment={shlex.quote(sys.prefix)}"
        )
        lines += PACKED.read_text(encoding="utf-8").splitlines()
    lines.append(f'python_here() {{ {python} "$@"; }}')
    if told:
        lines.append('notify() { python_here -m slurm.tracker.notify "$run" "$@" > /dev/null 2>&1; }')
        lines += ["trap notify EXIT", "notify started &"]
    return lines


def rank_variables(cluster: ClusterConfig, cpus: int | None) -> dict[str, str]:
    """Environment variables that the ranks get."""
    env = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(cpus or 1)}
    if cluster.interface:
        env |= {"NCCL_SOCKET_IFNAME": cluster.interface, "GLOO_SOCKET_IFNAME": cluster.interface}
    if cluster.device == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env | cluster.env


def teardown_lines() -> list[str]:
    """Shell lines after srun: the text of end.sh.

    The ranks leave marker files in the rendezvous folder of their attempt. What follows from one is done in
    the batch script, since a container holds no scontrol. The save signal comes minutes before the time
    limit: enough to ask a restarting controller several times.
    """
    return [
        "status=$?",
        "meeting=$run/rendezvous/$SLURM_JOB_ID-$restart",
        *END.read_text(encoding="utf-8").splitlines(),
    ]


def environment(cluster: ClusterConfig, env: Mapping[str, str]) -> dict[str, str]:
    """The environment in which sbatch and squeue are called, and which the job inherits."""
    kept = exported(env)
    if cluster.slurm_conf:
        kept["SLURM_CONF"] = str(Path(cluster.slurm_conf).absolute())
    return kept
