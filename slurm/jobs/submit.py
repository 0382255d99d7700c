"""Start a job here, in an existing allocation, or on Slurm.

    submit(Train(config), config, ranks=4, verb="pretrain") -> exit status

`Submission` holds what is asked. It looks at the run folder first: a run that is finished or live is said to
be, and nothing starts. slurm/README.md tells the whole order.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conf.errors import EXIT_INPUT, InputError, disk_full
from conf.plain import plain
from conf.schema.cluster import ClusterConfig
from conf.schema.run import Command
from elm_megatron.run import inputs, sharing
from elm_megatron.run.evaluations import due, try_again
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.resume import require_known_steps
from elm_megatron.run.steps import committed
from elm_megatron.sources import ownership
from elm_megatron.sources.places import run_config
from slurm.jobs import (
    allocation,
    batch,
    container,
    evaluations,
    frozen_code,
    local,
    notes,
    partition,
    queue_state,
    record,
    task,
)
from slurm.jobs.environment import dropped
from slurm.jobs.evaluations import LocalEvaluations
from slurm.jobs.executors import AllocationExecutor, Batch, BatchExecutor, Job, LocalExecutor, Task
from slurm.tracker import notify


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
        notify: how a person is told how the run goes.
        job_id: Slurm's id of the job that has this run now; None where there is none.
        group: a Unix group that shares the run.
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
    notify: Sequence[str] = ()
    job_id: str | None = None
    group: str | None = None

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
        run = RunFolder(config.run.dir)
        cluster = batch.with_needs(config.job_cluster(), verb, ranks)
        asked = plain(replace(config, cluster=cluster))
        mpi = config.meets_over_mpi and ranks > 1
        said = notes.notes(cluster, run.path)
        return cls(
            job,
            run,
            config.run.name,
            asked,
            cluster,
            ranks,
            verb,
            manifest_sha256,
            resumes,
            mpi,
            said,
            config.notify,
            group=config.run.group,
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
            return self._evaluate_rest()
        if self.resumes and not committed(self.run):
            require_known_steps(self.run)
        self._check_cluster()
        if (live := self._live()) and (status := self._say_queued(live, locked=False)) is not None:
            return status
        if self.cluster.executor == "slurm":
            partition.check_signal(self.cluster, queue_state.clusters_asked(os.environ))
        made = record.missing(self.run.path)
        self.run.create()
        self._share(made)
        try:
            with record.local_lock(self.run.path) as lock:
                # Another submitter may have been faster.
                if (live := self._live()) and (status := self._say_queued(live, locked=True)) is not None:
                    return status
                status = self._start_locked(lock)
        except record.AlreadyLive as live:
            print(f"{self.name} is live already: {live}, see {self.run.logs}.")
            return 0
        except InputError:
            record.remove_unused(self.run.path, made)
            raise
        except OSError as error:
            if not disk_full(error):
                raise
            said = f"{self.run.path}: the disk is full; make room and give the same command again."
            raise InputError(said) from error
        if status == EXIT_INPUT:
            record.remove_unused(self.run.path, made)
        return status

    def _share(self, made: list[Path]) -> None:
        """Open the folder to `run.group`; what is written from here on has the rights that this asks for.

        Raises:
            InputError: it cannot be given to the group.
        """
        if self.group:
            try:
                closed = sharing.share(self.run.path, self.group)
            except InputError:
                record.remove_unused(self.run.path, made)
                raise
            for note in closed:
                print(f"note: {note}.", file=sys.stderr)
        if sharing.is_shared(self.run.path):
            os.umask(sharing.umask_of(self.run.path))

    def script(self) -> str:
        """The exact text that sbatch would get, without submitting it."""
        return BatchExecutor(self._batch()).text()

    def _evaluate_rest(self) -> int:
        """Of a run that is finished: make the evaluations that are asked for and missing."""
        if not evaluations.are_asked(self.asked):
            return 0
        try_again(self.run)
        if not due(self.run):
            return 0
        self._check_cluster()
        evaluations.keep_settings(self.run, self.asked)
        if self.cluster.executor == "slurm":
            code = frozen_code.freeze(container.ROOT, self.run.path.parent)
            self._prepare_evaluations(self._batch())
            evaluations.hand_in(self.run, code, self.cluster.slurm_conf)
            print(f"evaluations of its checkpoints are queued, see {self.run.path / 'evaluations'}.")
            return 0
        env = local.environment(dict(os.environ), 1, gpu=False)
        try:
            with record.local_lock(self.run.path), local.stoppable() as stop:
                evaluating = LocalEvaluations(self.run, env)
                try:
                    return evaluating.finish(stop)
                finally:
                    evaluating.end()
        except record.AlreadyLive:
            return 0

    def _prepare_evaluations(self, chosen: Batch) -> None:
        code = frozen_code.place(container.ROOT, self.run.path.parent)
        evaluations.prepare(self.run, self.name, self.asked, self.cluster, chosen.python, code)

    # ---- is there anything to do?

    @property
    def _place(self) -> queue_state.Place | None:
        """The Slurm that would get the job."""
        if self.cluster.executor != "slurm":
            return None
        return queue_state.Place(self.cluster.slurm_conf, queue_state.clusters_asked(os.environ))

    def _live(self) -> queue_state.QueuedJob | None:
        """The job of this run that Slurm has already."""
        live = queue_state.live_job(self.run, self._place)
        self.job_id = live.id if live else None
        return live

    def _say_queued(self, live: queue_state.QueuedJob, locked: bool) -> int | None:
        """Say that Slurm has this run.

        Args:
            live: its job.
            locked: whether this is the only submitter now. Only that one takes a job out of the queue:
                another may be about to write down the job it has just handed in.

        Returns:
            The exit status; None when another job may be handed in.
        """
        if said := held(self.run, self.name):
            print(said, file=sys.stderr)
            return EXIT_INPUT
        if live.never_starts:
            return self._replace(live) if locked else None
        if self._is_orphan(live):
            return self._take_back(live, "sbatch had no answer when it was handed in") if locked else None
        print(f"{self.name} is live already: job {live.id}, logs in {self.run.logs}.")
        return 0

    def _is_orphan(self, live: queue_state.QueuedJob) -> bool:
        """Whether it waits without anything to run: its submitter never heard that Slurm has it."""
        if live.state != "PENDING" or live.id in self.run.read().get("job_ids", []):
            return False
        return not (self.run.logs / f"{live.id}_submitted.pkl").exists()

    def _replace(self, live: queue_state.QueuedJob) -> int | None:
        """Put this submission in the place of a job that can never start, if it asks for something else."""
        if self.run.config.exists() and run_config(self.run).get("cluster") == self.asked["cluster"]:
            print(
                f"{self.name}: job {live.id} can never start, Slurm says {live.reason}: change what it asks "
                "for (cluster.…) and give the command again.",
                file=sys.stderr,
            )
            return EXIT_INPUT
        return self._take_back(live, f"it could never start ({live.reason})")

    def _take_back(self, live: queue_state.QueuedJob, why: str) -> None:
        if not queue_state.cancel(self.run, live):
            raise InputError(f"{self.name}: job {live.id} could not be cancelled: scancel {live.id}.")
        print(f"{self.name}: job {live.id} is cancelled, {why}.", file=sys.stderr)
        self.job_id = None

    def _check_cluster(self) -> None:
        if "webhook" in self.notify:
            notify.address()
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
        if "webhook" in self.notify:
            notify.tell(self.run)
        return status

    def _here(self, lock: int | None) -> int:
        """Run the ranks on this machine, to their end."""
        job_id = str(os.getpid())
        try_again(self.run)
        self._record(f"local-{job_id}", owner=[job_id, 0])
        env = local.environment(dict(os.environ), self.ranks, gpu=self.cluster.device == "gpu")
        executor = LocalExecutor(self.run.logs, self.ranks, env, [] if lock is None else [lock])
        meeting = task.rendezvous(self.run.path, job_id, 0)
        record.remove_tree(meeting)
        with local.stoppable() as stop:
            try:
                executor.submit(Task(self.job, self.run.path, self.ranks, self.cluster, os.getpid()))
            except BaseException:
                local.kill(executor.ranks)
                raise
            evaluating = LocalEvaluations(self.run, env, evaluations.are_asked(self.asked))
            try:
                refusal = task.refusal(self.run.logs, job_id)
                world = local.LocalWorld(executor.ranks, refusal, beside=evaluating.poll)
                status = world.watch(stop) or evaluating.finish(stop)
            finally:
                evaluating.end()
        record.remove_tree(meeting)
        return status

    def _in_allocation(self) -> int:
        """Run the ranks in this shell's allocation, to their end."""
        job_id = allocation.job_id(os.environ)
        if self.cluster.cpus_per_task is None:
            cores = allocation.cores_of_rank(os.environ, self.ranks // self.cluster.nodes)
            self.cluster = replace(self.cluster, cpus_per_task=cores)
        chosen = self._batch()
        chosen.env = allocation.environment(os.environ)
        chosen.env |= batch.rank_variables(self.cluster, chosen.parameters["cpus_per_task"])
        executor = AllocationExecutor(chosen, job_id)
        self._record(job_id)
        refusal = task.refusal(self.run.logs, job_id)
        refusal.unlink(missing_ok=True)  # of an earlier srun in the same allocation
        with local.stoppable() as stop:
            try:
                executor.submit(Task(self.job, self.run.path, self.ranks, self.cluster))
            except BaseException:
                local.kill(executor.steps)
                raise
            return local.LocalWorld(executor.steps, refusal, grace=allocation.GRACE_SECONDS).watch(stop)

    def _queue(self) -> int:
        """Hand the job to sbatch; nothing of this command waits for it."""
        chosen = self._batch(freeze=True)
        if evaluations.are_asked(self.asked):
            try_again(self.run)
            self._prepare_evaluations(chosen)
        executor = BatchExecutor(chosen, taken=lambda job_id: self._record(job_id, executor.cluster))
        self.job_id = executor.submit(Task(self.job, self.run.path, self.ranks, self.cluster)).job_id
        sharing.keep_private(self.run.logs)
        cluster = self.cluster
        where = f"{cluster.name}, partition {cluster.partition}" if cluster.partition else cluster.name
        print(f"{self.name}: job {self.job_id} queued on {where}; logs in {self.run.logs}", flush=True)
        for note in [*self.notes, *self._left_behind(), *self._cleaned()]:
            print(f"note: {note}.", file=sys.stderr)
        return 0

    def _cleaned(self) -> list[str]:
        runs = self.run.path.parent
        if not (count := frozen_code.clean(runs)):
            return []
        what = "copy of code is" if count == 1 else "copies of code are"
        return [
            f"{count} {what} removed from {runs / frozen_code.FOLDER}, which no run in progress needs and "
            f"nobody has used for {frozen_code.UNUSED_DAYS} days"
        ]

    def _left_behind(self) -> list[str]:
        names = [name for name in dropped(os.environ) if name not in self.cluster.env]
        if not names:
            return []
        return [f"the job does not get {', '.join(names)}: what it needs of them goes into the site's `env`"]

    # ---- script and record

    def _batch(self, freeze: bool = False) -> Batch:
        others = container.named_paths(self.asked) if self.cluster.container else []
        runs = self.run.path.parent
        code = container.ROOT
        if self.cluster.executor == "slurm":
            code = (frozen_code.freeze if freeze else frozen_code.place)(container.ROOT, runs)
        python = container.python(self.cluster, self.run.path, code, others)
        parameters = batch.parameters(
            self.cluster, self.run.path, self.name, self.ranks, self.mpi, python, code, self.notify
        )
        if evaluations.are_asked(self.asked):
            evaluations.add_lines(parameters, code)
        return Batch(
            logs=self.run.logs,
            python=python,
            parameters=parameters,
            env=batch.environment(self.cluster, os.environ),
            where=f"cluster={self.cluster.name}",
            clusters=queue_state.clusters_asked(os.environ),
            find=self._find,
        )

    def _find(self) -> str | None:
        with suppress(InputError):  # a controller that is busy
            live = queue_state.live_job(self.run, self._place)
            return live.id if live else None
        return None

    def _record(self, job_id: str, slurm_cluster: str | None = None, owner: list[Any] | None = None) -> None:
        """Write config.yaml, and run.json for the time until the first rank starts."""
        description = record.describe(self.name, self.cluster, self.verb, self.notify)
        description |= ownership.facts(self.run, self.asked) | inputs.facts(self.asked)
        if self.cluster.executor == "slurm":
            own = queue_state.cluster_name(self.cluster.slurm_conf)
            description["slurm_cluster"] = slurm_cluster or own
            description["code"] = str(frozen_code.place(container.ROOT, self.run.path.parent))
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
    if not queue_state.is_held(run):
        return None
    known = run.read()
    job = known["job_ids"][-1]
    return (
        f"{name} is held: {known.get('reason')}; scontrol release {job} lets it go on as it is; for "
        f"other settings, scancel {job} and give this command again."
    )
