"""Start a job here, in an existing allocation, or on Slurm.

    submit(Train(config), config, ranks=4, verb="pretrain") -> exit status

`Submission` holds what is asked. It looks at the run folder first: a run that is finished or live is said to
be, and nothing starts. slurm/README.md tells the whole order.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from conf.errors import EXIT_INPUT, InputError
from conf.plain import plain
from conf.schema.cluster import ClusterConfig
from conf.schema.run import Command
from elm_megatron.run import inputs
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources import ownership
from slurm.jobs import allocation, batch, container, local, notes, queue_state, record, task
from slurm.jobs.executors import AllocationExecutor, Batch, BatchExecutor, Job, LocalExecutor, Task


@dataclass
class Submission:
    """One job, as asked for.

    Attributes:
        job: what each rank calls with its World.
        run: the folder of the run that is written.
        name: `run.name`, the job's name in the queue.
        asked: the checked configuration as plain values; it becomes config.yaml.
        cluster: where the job runs, as its verb needs it.
        ranks: processes of the whole job.
        verb: kept in run.json.
        manifest_sha256: of the dataset it reads, which may not change during the run.
        resumes: an existing run goes on only under the same configuration and ends once; otherwise the job
            itself knows what is left to do.
        mpi: its ranks meet through MPI rather than through the run folder.
        notes: said when Slurm has taken the job.
        job_id: Slurm's id of the job that has this run now; None where there is none.
    """

    job: Job
    run: RunFolder
    name: str
    asked: dict[str, Any]
    cluster: ClusterConfig
    ranks: int
    verb: str
    manifest_sha256: str | None = None
    resumes: bool = True
    mpi: bool = False
    notes: Sequence[str] = field(default_factory=list)
    job_id: str | None = None

    @classmethod
    def of(
        cls,
        job: Job,
        config: Command,
        ranks: int,
        verb: str,
        manifest_sha256: str | None = None,
        resumes: bool = True,
    ) -> Submission:
        """Take a verb's checked configuration apart."""
        run, cluster = RunFolder(config.run.dir), config.job_cluster()
        asked = plain(replace(config, cluster=cluster))
        mpi = config.meets_over_mpi and ranks > 1
        said = notes.notes(cluster, run.path)
        return cls(
            job, run, config.run.name, asked, cluster, ranks, verb, manifest_sha256, resumes, mpi, said
        )

    def after(self, dependency: str) -> None:
        """Let the job wait, on top of what `cluster.dependency` asks."""
        asked = [self.cluster.dependency] if self.cluster.dependency else []
        self.cluster = replace(self.cluster, dependency=",".join([*asked, dependency]))
        self.asked = self.asked | {"cluster": plain(self.cluster)}

    def start(self) -> int:
        """Run the job here, or hand it to Slurm.

        Returns:
            The exit status for the shell: 0 when the local job is done, when Slurm took it, or when there was
            nothing to do because the run is live or finished; 2 when its job is held, as stderr says.

        Raises:
            InputError: the run folder cannot be used; nothing was started.
        """
        record.check_folder(self.run.path)
        ownership.refuse_others(self.run, self.verb, self.asked)
        if self.resumes and (nothing := record.resumable(self.run, self.asked, self.manifest_sha256)):
            print(nothing)
            return 0
        if self._is_queued():
            return self._say_queued()
        self._check_cluster()
        made = record.missing(self.run.path)
        self.run.create()
        try:
            with record.local_lock(self.run.path) as lock:
                if self._is_queued():  # another submitter was faster
                    return self._say_queued()
                status = self._start_locked(lock)
        except record.AlreadyLive as live:
            print(f"{self.name} is live already: {live}, see {self.run.logs}.")
            return 0
        except InputError:
            record.remove_unused(self.run.path, made)
            raise
        if status == EXIT_INPUT:
            record.remove_unused(self.run.path, made)
        return status

    def script(self) -> str:
        """The exact text that sbatch would get, without submitting it."""
        return BatchExecutor(self._batch()).text()

    # ---- is there anything to do?

    def _is_queued(self) -> bool:
        """Whether Slurm has this run already."""
        self.job_id = queue_state.live_job(self.run.read())
        return self.job_id is not None

    def _say_queued(self) -> int:
        if said := held(self.run, self.name):
            print(said, file=sys.stderr)
            return EXIT_INPUT
        print(f"{self.name} is live already: job {self.job_id}, logs in {self.run.logs}.")
        return 0

    def _check_cluster(self) -> None:
        if self.cluster.executor == "allocation":
            allocation.check(os.environ, self.cluster.nodes)
        if self.cluster.executor == "slurm" and self.cluster.slurm_conf:
            queue_state.check_conf(self.cluster.slurm_conf)

    # ---- the three places

    def _start_locked(self, lock: int | None) -> int:
        if self.cluster.executor == "slurm":
            return self._queue()
        status = self._in_allocation() if self.cluster.executor == "allocation" else self._here(lock)
        if self.run.read().get("state") in record.ACTIVE:  # the job itself, or its death, left it open
            record.close(self.run, status)
        return status

    def _here(self, lock: int | None) -> int:
        """Run the ranks on this machine, to their end."""
        job_id = str(os.getpid())
        self._record(f"local-{job_id}", owner=[job_id, 0])
        env = local.environment(dict(os.environ), self.ranks, gpu=self.cluster.device == "gpu")
        executor = LocalExecutor(self.run.logs, self.ranks, env, [] if lock is None else [lock])
        meeting = task.rendezvous(self.run.path, job_id, 0)
        record.remove_tree(meeting)
        with local.interruptible():
            try:
                executor.submit(Task(self.job, self.run.path, self.ranks, self.cluster, os.getpid()))
            except BaseException:
                local.kill(executor.ranks)
                raise
            world = local.LocalWorld(executor.ranks, task.refusal(self.run.logs, job_id))
            status = world.watch()
        record.remove_tree(meeting)
        return status

    def _in_allocation(self) -> int:
        """Run the ranks in this shell's allocation, to their end."""
        job_id = allocation.job_id(os.environ)
        chosen = self._batch()
        chosen.env = allocation.environment(os.environ)
        chosen.env |= batch.rank_variables(self.cluster, chosen.parameters["cpus_per_task"])
        executor = AllocationExecutor(chosen, job_id)
        self._record(job_id)
        refusal = task.refusal(self.run.logs, job_id)
        refusal.unlink(missing_ok=True)  # of an earlier srun in the same allocation
        with local.interruptible():
            try:
                executor.submit(Task(self.job, self.run.path, self.ranks, self.cluster))
            except BaseException:
                local.kill(executor.steps)
                raise
            return local.LocalWorld(executor.steps, refusal, grace=allocation.GRACE_SECONDS).watch()

    def _queue(self) -> int:
        """Hand the job to sbatch; nothing of this command waits for it."""
        executor = BatchExecutor(self._batch(), taken=self._record)
        self.job_id = executor.submit(Task(self.job, self.run.path, self.ranks, self.cluster)).job_id
        cluster = self.cluster
        where = f"{cluster.name}, partition {cluster.partition}" if cluster.partition else cluster.name
        print(f"{self.name}: job {self.job_id} queued on {where}; logs in {self.run.logs}", flush=True)
        for note in self.notes:
            print(f"note: {note}.", file=sys.stderr)
        return 0

    # ---- script and record

    def _batch(self) -> Batch:
        others = container.named_paths(self.asked) if self.cluster.container else []
        return Batch(
            logs=self.run.logs,
            python=container.python(self.cluster, self.run.path, others),
            parameters=batch.parameters(self.cluster, self.run.path, self.name, self.ranks, self.mpi),
            env=batch.environment(self.cluster, os.environ),
            where=f"cluster={self.cluster.name}",
        )

    def _record(self, job_id: str, owner: list[Any] | None = None) -> None:
        """Write config.yaml, and run.json for the time until the first rank starts."""
        description = record.describe(self.name, self.cluster, self.verb)
        description |= ownership.facts(self.run, self.asked) | inputs.facts(self.asked)
        record.write(self.run, self.asked, description, job_id, owner)


def submit(
    job: Job, config: Any, ranks: int, verb: str, manifest_sha256: str | None = None, resumes: bool = True
) -> int:
    """Run a job here, or queue it on a Slurm cluster; see `Submission`.

    Returns:
        The exit status for the shell.

    Raises:
        InputError: the run folder cannot be used; nothing was started.
    """
    return Submission.of(job, config, ranks, verb, manifest_sha256, resumes).start()


def script(config: Any, ranks: int, verb: str) -> str:
    """The exact text that sbatch would get, without submitting it."""
    return Submission.of(print, config, ranks, verb).script()


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
