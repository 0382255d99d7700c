"""Hands a job to submitit, here or on Slurm: the only module that imports it.

    submit(Pretrain(config), config, ranks=4, verb="pretrain") -> exit status

Local ranks are started by `WatchedExecutor`, submitit's local executor without its controller process: that
one waits for every rank even after one was killed, and calls the job finished then.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, JobPaths
from submitit.local.local import LocalJob

from conf.compose import EXIT_INPUT
from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import Outcome, World
from slurm.jobs import allocation, batch, lives, local, queue_state, record, task

Job = Callable[[World], Outcome]
LOCAL_MINUTES = 30 * 24 * 60
QUEUED: list[str] = []  # job ids of this command, in order: the points of a sweep, the stages of a chain


@dataclass
class Task:
    """What submitit pickles: a job, its run folder, and for a local run the launcher it must not outlive."""

    job: Job
    run: Path
    ranks: int
    cluster: ClusterConfig
    launcher: int | None = None

    def __call__(self) -> Outcome:
        env = submitit.JobEnvironment()
        if env.num_tasks != self.ranks:
            raise RuntimeError(f"this world has {env.num_tasks} ranks, the job was made for {self.ranks}")
        if self.launcher is not None:
            world = task.local_world(self.run, env.global_rank, env.num_tasks, env.job_id)
            return task.run(self.job, world, self.launcher)
        world = task.slurm_world(
            self.run, env.global_rank, env.num_tasks, env.num_nodes, env.job_id, self.cluster.interface
        )
        world.rendezvous.mkdir(parents=True, exist_ok=True)
        # Every srun in an allocation is a life of the same job, started by a person.
        limit = self.cluster.max_stalls if self.cluster.executor == "slurm" else sys.maxsize
        progress = getattr(self.job, "progress", None)  # of a job that makes no checkpoints
        lives.begin(RunFolder(self.run), world, limit, progress() if progress else None)
        folder = RunFolder(self.run, [world.job_id, world.restart])
        try:
            outcome = task.run(self.job, world)
        except Exception as error:
            lives.failed(folder, world, error)
            raise
        if world.rank == 0:
            lives.end(folder, world, outcome)
        return outcome


class WatchedExecutor(submitit.LocalExecutor):
    """submitit's local executor, with the ranks as direct children of this process."""

    def __init__(self, folder: Path, env: dict[str, str], inherit: Sequence[int]):
        super().__init__(folder)
        self.env, self.inherit = env, inherit
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
            self.inherit,
        )
        return LocalJob(folder=self.folder, job_id=job_id, tasks=list(range(count)))


class BatchExecutor(submitit.SlurmExecutor):
    """submitit's Slurm executor with a clean environment, a quiet sbatch and this suite's script.

    `taken` is called with the job id before any rank can begin: ranks wait for their pickle, which gets its
    place after it.
    """

    def __init__(self, config: Any, ranks: int, verb: str):
        cluster, run = config.cluster, RunFolder(config.run.dir)
        others = batch.named_paths(config) if cluster.container else []
        super().__init__(run.logs, python=batch.python(cluster, run.path, others))
        self.cluster = cluster
        self.taken: Callable[[str], None] = lambda job_id: None
        mpi = verb == "preprocess" and ranks > 1
        self.update_parameters(**batch.parameters(cluster, run.path, config.run.name, ranks, mpi))

    @classmethod
    def affinity(cls) -> int:
        return 2  # a dry run shows the script on machines without Slurm too

    def text(self) -> str:
        """The batch script."""
        return self._make_submission_file_text(self._submitit_command_str, "")

    def _submit_command(self, command: str) -> submitit.SlurmJob[Any]:
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(batch.environment(self.cluster, before))
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit repeats what the exception says
                job = super()._submit_command(command)
        except (OSError, FailedJobError) as error:
            said = f"cluster={self.cluster.name}: sbatch refused the job: {_reason(error)}."
            raise InputError(said) from error
        finally:
            os.environ.clear()
            os.environ.update(before)
        self.taken(job.job_id)
        return job


def _reason(error: Exception) -> str:
    """The last two lines of what sbatch said: the limit may be named in the line before the last."""
    lines = [
        line.removeprefix("sbatch: error: ").rstrip(".") for line in str(error).splitlines() if line.strip()
    ]
    return "; ".join(lines[-2:]) or repr(error)


class AllocationExecutor(BatchExecutor):
    """One srun in the allocation of this shell, as this process's child."""

    def __init__(self, config: Any, ranks: int, verb: str):
        super().__init__(config, ranks, verb)
        self.steps: list[local.Rank] = []

    def _submit_command(self, command: str) -> submitit.SlurmJob[Any]:
        job_id = allocation.job_id(os.environ)
        params = self.parameters
        tasks = params["nodes"] * params["ntasks_per_node"]
        paths = JobPaths(self.folder, job_id, 0)
        srun = ["srun", f"--nodes={params['nodes']}", f"--ntasks={tasks}", *params["srun_args"]]
        srun += ["--unbuffered", "--output", str(self.folder / "%j_%t_log.out")]
        srun += ["--error", str(self.folder / "%j_%t_log.err"), *shlex.split(command)]
        own = [(self.folder / f"{job_id}_srun.out", self.folder / f"{job_id}_srun.err")]
        env = allocation.environment(os.environ)
        env |= batch.rank_variables(self.cluster, params["cpus_per_task"])
        self.steps = local.start(srun, own, env, [{}], [paths.result_pickle])
        self.steps[0].shown = paths.stdout
        return submitit.SlurmJob(folder=self.folder, job_id=job_id, tasks=list(range(tasks)))


def submit(
    job: Job, config: Any, ranks: int, verb: str, manifest_sha256: str | None = None, resumes: bool = True
) -> int:
    """Run a job here, or queue it on a Slurm cluster.

    Args:
        job: what each rank calls with its World.
        config: the checked config, with `run` (the run being written) and `cluster`.
        ranks: processes of the whole job.
        verb: kept in run.json.
        manifest_sha256: of the dataset it reads, which may not change while the run lives.
        resumes: an existing run goes on only under the same config and ends once; otherwise the job itself
            knows what is left to do.

    Returns:
        The exit status for the shell: 0 when the local job is done, when Slurm took it, or when there was
        nothing to do because the run is live or finished; 2 when its job is held, which is said on stderr.

    Raises:
        InputError: the run folder cannot be used; nothing was started.
    """
    run = RunFolder(config.run.dir)
    notes = batch.notes(config.cluster, run.path, verb)
    config = replace(config, cluster=batch.for_verb(config.cluster, verb))
    record.check_folder(run.path)
    nothing = record.resumable(run, config, manifest_sha256) if resumes else None
    if nothing:
        print(nothing)
        return 0
    if (known := _queued(run, config.run.name)) is not None:
        return known
    if config.cluster.executor == "allocation":
        allocation.check(os.environ, config.cluster.nodes)
    if config.cluster.executor == "slurm" and config.cluster.slurm_conf:
        queue_state.check_conf(config.cluster.slurm_conf)
    made = record.missing(run.path)
    run.create()
    try:
        with record.local_lock(run.path) as lock:
            if (known := _queued(run, config.run.name)) is not None:  # another submitter was faster
                return known
            if config.cluster.executor == "slurm":
                try:
                    return _queue(job, config, run, ranks, verb, notes)
                except InputError:
                    record.remove_unused(run.path, made)
                    raise
            if config.cluster.executor == "allocation":
                status = _run_in_allocation(job, config, run, ranks, verb)
            else:
                life = {"life": [str(os.getpid()), 0]}
                record.write(run, config, record.describe(config, verb) | life, f"local-{os.getpid()}")
                status = _run_here(job, config.cluster, run, ranks, [lock] if lock is not None else [])
            if run.read().get("state") in record.ACTIVE:  # the job itself, or its death, left it open
                record.close(run, status)
        if status == EXIT_INPUT:
            record.remove_unused(run.path, made)
        return status
    except record.AlreadyLive as live:
        print(f"{config.run.name} is live already: {live}, see {run.logs}.")
        return 0


def _queued(run: RunFolder, name: str) -> int | None:
    """Say that Slurm has this run already; returns the exit status then, and None where it has not.

    A held job takes its turn among the points of a sweep too, and those behind it are still handed in.
    """
    live = queue_state.live_job(run.read())
    if live is None:
        return None
    QUEUED.append(live)
    said = held(run, name)
    if said:
        print(said, file=sys.stderr)
        return EXIT_INPUT
    print(f"{name} is live already: job {live}, logs in {run.logs}.")
    return 0


def held(run: RunFolder, name: str) -> str | None:
    """The sentence about a run whose job Slurm holds, so that it would wait for ever; None for another."""
    known = run.read()
    if not queue_state.is_held(known):
        return None
    job = known["job_ids"][-1]
    return (
        f"{name} is held: {known.get('reason')}; scontrol release {job} lets it go on as it is; for "
        f"other settings, scancel {job} and give this command again."
    )


def _run_here(job: Job, cluster: ClusterConfig, run: RunFolder, ranks: int, inherit: Sequence[int]) -> int:
    env = local.environment(dict(os.environ), ranks, gpu=cluster.device == "gpu")
    executor = WatchedExecutor(run.logs, env, inherit)
    executor.update_parameters(timeout_min=LOCAL_MINUTES, tasks_per_node=ranks)
    meeting = task.rendezvous(run.path, str(os.getpid()), 0)
    record.remove_tree(meeting)
    with local.interruptible():
        try:
            executor.submit(Task(job, run.path, ranks, cluster, os.getpid()))
        except BaseException:
            local.kill(executor.ranks)
            raise
        status = local.LocalWorld(executor.ranks).watch()
    record.remove_tree(meeting)
    return status


def _run_in_allocation(job: Job, config: Any, run: RunFolder, ranks: int, verb: str) -> int:
    job_id = allocation.job_id(os.environ)
    executor = AllocationExecutor(config, ranks, verb)
    record.write(run, config, record.describe(config, verb), job_id)
    with local.interruptible():
        try:
            executor.submit(Task(job, run.path, ranks, config.cluster))
        except BaseException:
            local.kill(executor.steps)
            raise
        return allocation.watch(executor.steps)


def _queue(job: Job, config: Any, run: RunFolder, ranks: int, verb: str, notes: Sequence[str]) -> int:
    """Hand the job to sbatch; nothing of this command waits for it."""
    config = _in_turn(config)
    cluster = config.cluster
    executor = BatchExecutor(config, ranks, verb)
    executor.taken = lambda job_id: record.write(run, config, record.describe(config, verb), job_id)
    job_id = executor.submit(Task(job, run.path, ranks, cluster)).job_id
    QUEUED.append(job_id)
    where = f"{cluster.name}, partition {cluster.partition}" if cluster.partition else cluster.name
    print(f"{config.run.name}: job {job_id} queued on {where}; logs in {run.logs}", flush=True)
    for note in notes:
        print(f"note: {note}.", file=sys.stderr)
    return 0


def _in_turn(config: Any) -> Any:
    """Let a point of a sweep wait for an earlier one where `cluster.at_once` limits how many may run."""
    cluster = config.cluster
    if cluster.at_once is None or len(QUEUED) < cluster.at_once:
        return config
    turn = f"afterany:{QUEUED[-cluster.at_once]}"
    dependency = f"{cluster.dependency},{turn}" if cluster.dependency else turn
    return replace(config, cluster=replace(cluster, dependency=dependency))


def script(config: Any, ranks: int, verb: str) -> str:
    """The exact text that sbatch would get, without submitting it."""
    config = replace(config, cluster=batch.for_verb(config.cluster, verb))
    return BatchExecutor(config, ranks, verb).text()
