"""submitit as this suite uses it: the only module that imports it.

`Task` is what submitit pickles and every rank calls. An executor starts the tasks: `LocalExecutor` here,
`BatchExecutor` through sbatch, `AllocationExecutor` by one srun inside an existing allocation.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, JobPaths
from submitit.local.local import LocalJob

from conf.errors import EXIT_INPUT, InputError
from conf.schema.cluster import ClusterConfig
from elm_megatron.run import sharing
from elm_megatron.run.folder import RunFolder, Superseded
from elm_megatron.run.world import Outcome, World
from slurm.jobs import attempts, local, spent, task

Job = Callable[[World], Outcome]
LOCAL_MINUTES = 30 * 24 * 60
LOST_SECONDS = 30.0  # in which a job that sbatch timed out on shows up in the queue
NO_ANSWER = re.compile(r"timed out|Zero Bytes|receive failure|Unexpected message", re.IGNORECASE)


@dataclass
class Task:
    """What submitit pickles.

    Attributes:
        job: what each rank calls.
        run: its run folder.
        ranks: processes of the whole job.
        cluster: where it runs.
        launcher: pid of the launcher that a local rank must not outlive; None on Slurm.
    """

    job: Job
    run: Path
    ranks: int
    cluster: ClusterConfig
    launcher: int | None = None

    def __call__(self) -> Outcome:
        """Run the job as one rank.

        Raises:
            SystemExit: the job refused its input, or the attempt is held.
        """
        env = submitit.JobEnvironment()
        if env.num_tasks != self.ranks:
            raise RuntimeError(f"this world has {env.num_tasks} ranks, the job was made for {self.ranks}")
        try:
            return self._here(env) if self.launcher is not None else self._on_slurm(env)
        except InputError as error:
            task.refuse(task.refusal(RunFolder(self.run).logs, env.job_id), error)
            raise SystemExit(EXIT_INPUT) from None

    def _here(self, env: submitit.JobEnvironment) -> Outcome:
        world = task.local_world(self.run, env.global_rank, env.num_tasks, env.job_id)
        with spent.counted(self.run, world, self.cluster):
            return task.run(self.job, world, self.launcher, sharing.umask_of(self.run))

    def _on_slurm(self, env: submitit.JobEnvironment) -> Outcome:
        interface = self.cluster.interface
        world = task.slurm_world(
            self.run, env.global_rank, env.num_tasks, env.num_nodes, env.job_id, interface
        )
        world.rendezvous.mkdir(parents=True, exist_ok=True)
        # Every srun in an allocation is an attempt of the same job, started by a person.
        limit = self.cluster.max_stalls if self.cluster.executor == "slurm" else sys.maxsize
        progress = getattr(self.job, "progress", None)  # of a job that makes no checkpoints
        overlaps = getattr(self.job, "overlaps", False)  # its successor begins while it runs
        attempts.begin(RunFolder(self.run), world, limit, progress() if progress else None, not overlaps)
        folder = RunFolder(self.run, [world.job_id, world.restart])
        try:
            with spent.counted(self.run, world, self.cluster):
                outcome = task.run(self.job, world, umask=sharing.umask_of(self.run))
        except Exception as error:
            attempts.failed(folder, world, error)
            raise
        if world.rank == 0:
            with contextlib.suppress(*([Superseded] if overlaps else [])):
                attempts.end(folder, world, outcome)
        return outcome


class LocalExecutor(submitit.LocalExecutor):
    """submitit's local executor with the ranks as direct children of this process.

    submitit's own controller waits for every rank after one was killed, and then calls the job finished.
    """

    def __init__(self, folder: Path, ranks: int, env: Mapping[str, str], inherit: Sequence[int]):
        super().__init__(folder)
        self.update_parameters(timeout_min=LOCAL_MINUTES, tasks_per_node=ranks)
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


class Refused(InputError):
    """Slurm did not take a job."""

    @property
    def is_full(self) -> bool:
        """Whether it is only that too many jobs are handed in at this moment."""
        return "SubmitJob" in str(self)


@dataclass
class Batch:
    """What a Slurm executor needs to know.

    Attributes:
        logs: folder for scripts, pickles and logs.
        python: the command that starts Python on a rank.
        parameters: of submitit's Slurm executor.
        env: the environment in which sbatch is called, and which the job inherits.
        where: names the cluster in a refusal.
        clusters: clusters that a person chose by name; None is this machine's own.
        find: the id of this job in the queue, None when it is not there.
    """

    logs: Path
    python: str
    parameters: dict[str, Any]
    env: dict[str, str]
    where: str
    clusters: str | None = None
    find: Callable[[], str | None] = lambda: None


class BatchExecutor(submitit.SlurmExecutor):
    """submitit's Slurm executor with a clean environment, a quiet sbatch and this suite's script.

    Args:
        batch: the job.
        taken: called with the job id before any rank can begin: ranks wait for their pickle, which gets its
            place after that.
    """

    def __init__(self, batch: Batch, taken: Callable[[str], None] = lambda job_id: None):
        super().__init__(batch.logs, python=batch.python)
        self.batch, self.taken = batch, taken
        self.cluster: str | None = (
            None  # Slurm's name of the cluster that took the job, where sbatch tells it
        )
        self.update_parameters(**batch.parameters)

    @classmethod
    def affinity(cls) -> int:
        return 2  # a dry run shows the script on machines without Slurm too

    def text(self, command: str | None = None) -> str:
        """The batch script.

        Args:
            command: what every rank executes; None is submitit's task.
        """
        return self._make_submission_file_text(command or self._submitit_command_str, "")

    def _submit_command(self, command: str) -> submitit.SlurmJob[Any]:
        with _environment(self.batch.env):
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # submitit repeats what the exception says
                    job = super()._submit_command(command)
            except (OSError, FailedJobError) as error:
                job = self._lost(error)
        self.taken(job.job_id)
        return job

    def _lost(self, error: Exception) -> submitit.SlurmJob[Any]:
        """The job whose acceptance sbatch did not hear of.

        Raises:
            InputError: Slurm refused it, or does not have it.
        """
        reason = _reason(error)
        if not NO_ANSWER.search(str(error)):
            raise Refused(f"{self.batch.where}: sbatch refused the job: {reason}.") from error
        until = time.monotonic() + LOST_SECONDS
        while (job_id := self.batch.find()) is None:
            if time.monotonic() > until:
                said = f"sbatch got no answer ({reason}), and Slurm does not have the job"
                raise Refused(f"{self.batch.where}: {said}; give the command again.") from error
            time.sleep(1)
        job: submitit.SlurmJob[Any] = submitit.SlurmJob(self.folder, job_id, list(range(self._num_tasks())))
        for script in self.folder.glob(".submission_file_*.sh"):
            job.paths.move_temporary_file(script, "submission_file", keep_as_symlink=True)
        return job

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        where = [f"--clusters={self.batch.clusters}"] if self.batch.clusters else []
        return ["sbatch", *where, str(submission_file_path)]

    def _get_job_id_from_submission_command(self, string: bytes | str) -> str:  # type: ignore[override]
        text = string.decode() if isinstance(string, bytes) else string
        found = re.search(r"on cluster (\S+)", text)
        self.cluster = found[1] if found else None
        return super()._get_job_id_from_submission_command(text)


@contextlib.contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    """Let this process have another environment for a moment."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _reason(error: Exception) -> str:
    """The last two lines of what sbatch said: the limit may be named in the line before the last."""
    lines = [
        line.removeprefix("sbatch: error: ").rstrip(".") for line in str(error).splitlines() if line.strip()
    ]
    return "; ".join(lines[-2:]) or repr(error)


class AllocationExecutor(BatchExecutor):
    """One srun in the allocation of this shell, as this process's child.

    Args:
        batch: the job; its `env` is srun's.
        job_id: the allocation.
    """

    def __init__(self, batch: Batch, job_id: str):
        super().__init__(batch)
        self.job_id = job_id
        self.steps: list[local.Rank] = []

    def _submit_command(self, command: str) -> submitit.SlurmJob[Any]:
        params = self.parameters
        tasks = params["nodes"] * params["ntasks_per_node"]
        paths = JobPaths(self.folder, self.job_id, 0)
        srun = ["srun", "--overlap", f"--nodes={params['nodes']}", f"--ntasks={tasks}", *params["srun_args"]]
        srun += ["--unbuffered", "--output", str(self.folder / "%j_%t_log.out")]
        srun += ["--error", str(self.folder / "%j_%t_log.err"), *shlex.split(command)]
        own = [(self.folder / f"{self.job_id}_srun.out", self.folder / f"{self.job_id}_srun.err")]
        self.steps = local.start(srun, own, self.batch.env, [{}], [paths.result_pickle])
        self.steps[0].shown = paths.stdout
        return submitit.SlurmJob(folder=self.folder, job_id=self.job_id, tasks=list(range(tasks)))
