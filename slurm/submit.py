"""Hands a job to submitit, here or on Slurm: the only module that imports it.

    submit(Pretrain(config), config.cluster, RunFolder(config.run.dir), ranks=4) -> exit status

Local ranks are started by `WatchedExecutor`, submitit's local executor without its controller process: that
one waits for every rank even after one was killed, and calls the job finished then.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import JobPaths
from submitit.local.local import LocalJob

from data_prep.errors import InputError
from elm_megatron.config import ClusterConfig
from elm_megatron.run_folder import RunFolder
from elm_megatron.world import Outcome, World
from slurm import local, task

Job = Callable[[World], Outcome]
LOCAL_MINUTES = 30 * 24 * 60
FOLDER = re.compile(r"[A-Za-z0-9À-ɏ][A-Za-z0-9À-ɏ ._=+,@~()-]*|[._][A-Za-z0-9À-ɏ._=+,@~()-]+")


@dataclass
class Task:
    """What submitit pickles: a job, its run folder, and for a local run the launcher it must not outlive."""

    job: Job
    run: Path
    launcher: int | None = None

    def __call__(self) -> Outcome:
        env = submitit.JobEnvironment()
        if self.launcher is None:
            raise RuntimeError("only local runs are known yet")
        world = task.local_world(self.run, env.global_rank, env.num_tasks, env.job_id)
        return task.run(self.job, world, self.launcher)


class WatchedExecutor(submitit.LocalExecutor):
    """submitit's local executor, with the ranks as direct children of this process."""

    def __init__(self, folder: Path, env: dict[str, str]):
        super().__init__(folder)
        self.env = env
        self.ranks: list[local.Rank] = []

    def _submit_command(self, command: str) -> LocalJob[Any]:
        count = self.parameters["tasks_per_node"]
        job_id = str(os.getpid())
        paths = [JobPaths(self.folder, job_id, rank) for rank in range(count)]
        shared = {
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_NTASKS": str(count),
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_JOB_ID": job_id,
        }
        self.ranks = local.start(
            shlex.split(command),
            [(path.stdout, path.stderr) for path in paths],
            {**self.env, **shared},
            [{"SUBMITIT_LOCAL_LOCALID": str(r), "SUBMITIT_LOCAL_GLOBALID": str(r)} for r in range(count)],
            [path.result_pickle for path in paths],
        )
        return LocalJob(folder=self.folder, job_id=job_id, tasks=list(range(count)))


def submit(job: Job, cluster: ClusterConfig, run: RunFolder, ranks: int) -> int:
    """Run a job here, or queue it on a Slurm cluster.

    Args:
        job: what each rank calls with its World.
        cluster: where.
        run: the run being written; its folder is made if need be.
        ranks: processes of the whole job.

    Returns:
        The exit status for the shell: 0 when the local job is done, or when Slurm took it.

    Raises:
        InputError: the run folder cannot be used; nothing was started.
    """
    check_folder(run.path)
    if cluster.nodes != 1:
        raise InputError(f"cluster.nodes={cluster.nodes}: cluster={cluster.name} is one node.")
    run.create()
    return _run_here(job, cluster, run, ranks)


def _run_here(job: Job, cluster: ClusterConfig, run: RunFolder, ranks: int) -> int:
    env = local.environment(dict(os.environ), ranks, gpu=cluster.device == "gpu")
    executor = WatchedExecutor(run.logs, env)
    executor.update_parameters(timeout_min=LOCAL_MINUTES, tasks_per_node=ranks)
    remove_tree(task.rendezvous(run.path, str(os.getpid()), 0))
    with local.interruptible():
        try:
            executor.submit(Task(job, run.path, os.getpid()))
        except BaseException:
            local.kill(executor.ranks)
            raise
        return local.LocalWorld(executor.ranks).watch()


def remove_tree(folder: Path) -> None:
    """Delete a folder of plain files, if it is there."""
    if folder.exists():
        for item in folder.iterdir():
            item.unlink()
        folder.rmdir()


def check_folder(path: Path) -> None:
    """Refuse a run folder whose name a shell, sbatch or submitit would read as more than a name.

    Raises:
        InputError: naming the part of the path and the characters that are allowed.
    """
    for part in path.absolute().parts[1:]:
        if not FOLDER.fullmatch(part):
            raise InputError(
                f"run.dir={path}: the folder name {part!r} may hold only letters, digits, spaces and"
                " . _ = + , @ ~ ( ) -, and starts with a letter, a digit, a dot or an underscore."
            )
