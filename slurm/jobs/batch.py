"""What a batch job asks Slurm for: a cluster's configuration as submitit's parameters; no submitit here.

The script that comes out is kept as golden texts in tests/slurm/golden/.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from slurm.jobs import task
from slurm.jobs.environment import exported

JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+,@-]{0,199}")
EXIT_STOPPED = 143  # 128 + SIGTERM
TEXT_KEYS = ("partition", "account", "qos", "constraint", "reservation", "exclude", "dependency")
TEXT_KEYS += ("mail_user", "mail_type")


def parameters(cluster: ClusterConfig, run: Path, name: str, ranks: int, mpi: bool) -> dict[str, Any]:
    """Parameters for submitit's Slurm executor.

    Args:
        cluster: checked already.
        run: absolute run folder.
        name: `run.name`, the job's name.
        ranks: tasks of the whole job.
        mpi: whether ranks meet through MPI (preprocess) rather than through the run folder.

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
        "setup": setup_lines(cluster, cpus),
        "teardown": teardown_lines(run),
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


def setup_lines(cluster: ClusterConfig, cpus: int | None) -> list[str]:
    """Shell lines before srun: modules, the site's own lines, the variables of the ranks."""
    lines = ["umask 077"]
    if cluster.modules:
        # The caller's shell functions do not travel with the job; a login shell's files define this one.
        lines += ["command -v module > /dev/null || . /etc/profile", "module purge"]
        lines += [f"module load {module} || exit 1" for module in cluster.modules]
    variables = rank_variables(cluster, cpus).items()
    return [*lines, *cluster.setup, *(f"export {name}={shlex.quote(value)}" for name, value in variables)]


def rank_variables(cluster: ClusterConfig, cpus: int | None) -> dict[str, str]:
    """Environment variables that the ranks get."""
    env = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(cpus or 1)}
    if cluster.interface:
        env |= {"NCCL_SOCKET_IFNAME": cluster.interface, "GLOO_SOCKET_IFNAME": cluster.interface}
    if cluster.device == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env | cluster.env


def teardown_lines(run: Path) -> list[str]:
    """Shell lines after srun: the job's own requeue, done here because a container holds no scontrol.

    The ranks leave a file saying so. Otherwise the script ends with srun's status, or with 143 when the ranks
    were told to stop: sacct tells the truth, and what waits for this job's success does not start. The save
    signal comes minutes before the time limit: enough to ask a restarting controller several times.
    """
    meeting = (
        shlex.quote(str(task.rendezvous(run, "", 0).parent)) + '/"$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"'
    )
    return [
        "status=$?",
        f"meeting={meeting}",
        "ask() {",
        "  for pause in 1 5 10 20 40 80; do",
        '    scontrol "$@" "$SLURM_JOB_ID" && return',
        "    sleep $pause  # the controller is being restarted",
        "  done",
        "  return 1",
        "}",
        f'if [ -e "$meeting/{task.HOLD}" ]; then ask requeuehold; exit; fi',
        f'if [ -e "$meeting/{task.REQUEUE}" ]; then ask requeue; exit; fi',
        f'if [ -e "$meeting/{task.STOPPED}" ]; then',
        # Slurm itself would requeue a job that it preempts with a grace time, but only at that time's end.
        "  shown=$(ask -o show job)",
        '  if [[ "$shown" =~ JobState=RUNNING\\ .*\\ PreemptTime=[0-9] ]]; then ask requeue; exit; fi',
        f"  exit {EXIT_STOPPED}",
        "fi",
        "exit $status",
    ]


def environment(cluster: ClusterConfig, env: Mapping[str, str]) -> dict[str, str]:
    """The environment in which sbatch and squeue are called, and which the job inherits."""
    kept = exported(env)
    if cluster.slurm_conf:
        kept["SLURM_CONF"] = str(Path(cluster.slurm_conf).absolute())
    return kept
