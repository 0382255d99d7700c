"""A chain of stages, each skipped when its output is there and valid.

Here they run one after another. On Slurm all are queued at once, each waiting for the one before (`afterok`);
a stage that fails takes those behind it out of the queue, and a requeue keeps the job id and so the chain.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.errors import InputError
from conf.plain import plain
from elm_megatron.run.folder import ATTEMPTS, RunFolder
from elm_megatron.sources import ownership
from slurm.chains.sweep import Sweep, incomplete
from slurm.jobs import extras, queue_state
from slurm.jobs.executors import Job, Refused
from slurm.jobs.screen import say
from slurm.jobs.submit import Submission, held


@dataclass
class Stage:
    """One link.

    Attributes:
        verb: names it.
        config: its checked config, with `run` and `cluster`.
        job: what runs.
        ranks: of its job.
        source: what it reads, for people.
        output: the path of what it makes.
        proof: a file that is written anew whenever the output changes.
        manifest: gives the sha256 of the dataset it reads (or None), or raises InputError; called when the
            stage before has ended.
        finished: whether its output is there and valid.
        resumes: see `slurm.jobs.submit.Submission`.
        sources: runs that its run is made from.
    """

    verb: str
    config: Any
    job: Job
    ranks: int
    source: str
    output: str
    proof: Path
    manifest: Callable[[], str | None] = lambda: None
    finished: Callable[[], bool] = lambda: False
    resumes: bool = True
    sources: tuple[RunFolder, ...] = ()

    @property
    def run(self) -> RunFolder:
        """Its run folder."""
        return RunFolder(self.config.run.dir)

    def submission(self, manifest_sha256: str | None) -> Submission:
        """Its job, as asked for; `manifest_sha256` is that of the dataset it reads."""
        return Submission.of(self.job, self.config, self.ranks, self.verb, manifest_sha256, self.resumes)

    def stamp(self) -> int | None:
        """When the output was made (ns since the epoch), None when it is not there."""
        return self.proof.stat().st_mtime_ns if self.proof.exists() else None

    def check_fresh(self, changing: bool) -> None:
        """Refuse to take a finished run for what would come out of sources that are others now.

        Args:
            changing: a stage before it is about to make them anew.

        Raises:
            InputError: naming the run.
        """
        if not self.resumes or self.run.read().get("state") != "done":
            return
        if changing or not done_since(self.run, *self.sources):
            when = "changes" if changing else "has changed"
            raise InputError(
                f"{self.run.path} is finished, and what it was made from {when}: give another run.name."
            )


@dataclass
class Row:
    """What became of a stage: `seconds` it took, or that it was `reused`."""

    stage: Stage
    seconds: float
    reused: bool


@dataclass
class Link:
    """A stage in Slurm's queue: its job, None when there is nothing to do, and what that job waits for."""

    stage: Stage
    job: str | None
    waits: str | None

    def state(self) -> str:
        """How far it is, from its run.json."""
        record = self.stage.run.read()
        if self.job is None:
            return "there already, and valid"
        if record.get("state") != "submitted" and record.get("step"):
            return f"{record['state']}, step {record['step']} of {record.get('steps', '?')}"
        return record.get("state", "submitted")


def run_here(stages: list[Stage]) -> tuple[int, list[Row]]:
    """Run the stages one after another on this machine.

    Returns:
        0 and a row per stage, or the exit status of the stage that failed and the rows up to it.
    """
    check_runs(stages)
    rows = []
    for number, stage in enumerate(stages, 1):
        began = time.monotonic()
        say(f"\n[{number}/{len(stages)}] {stage.verb}: {stage.source} → {stage.output}")
        before = stage.stamp()
        if stage.finished():
            say("there already, and valid")
        else:
            stage.check_fresh(changing=False)
            status = stage.submission(stage.manifest()).start()
            if status:
                return status, rows
        rows.append(Row(stage, time.monotonic() - began, before is not None and before == stage.stamp()))
    return 0, rows


def check_runs(stages: list[Stage]) -> None:
    """Look at the run folder of every stage before the first one starts.

    Raises:
        InputError: one of them is another verb's or another source's.
    """
    for stage in stages:
        ownership.refuse_others(stage.run, stage.verb, plain(stage.config))


def check_scripts(stages: list[Stage]) -> None:
    """Make the batch script of every stage, so that one that cannot be made is refused before any is queued.

    The libraries of each stage are looked for too.

    Raises:
        InputError: naming what is wrong.
    """
    for stage in stages:
        extras.check(stage.verb, stage.config)
        stage.submission(None).script()


def queue(stages: list[Stage], sweep: Sweep) -> list[Link]:
    """Hand every missing stage to Slurm, each after the one before; all, or none of those that were missing.

    Args:
        stages: of one chain, in order.
        sweep: the chains of this command; the first stage waits for its turn among them.

    Raises:
        InputError: a stage cannot be a batch job; or Slurm holds or refuses it, and those queued by this call
            are cancelled again.
    """
    check_runs(stages)
    check_scripts(stages)
    links: list[Link] = []
    ours: list[RunFolder] = []
    turn = sweep.turn(stages[0].config.cluster)
    try:
        for stage in stages:
            before = next((link.job for link in reversed(links) if link.job), None)
            if before is None and stage.finished():
                links.append(Link(stage, None, None))
                continue
            stage.check_fresh(changing=before is not None)
            if said := held(stage.run, stage.config.run.name):
                raise InputError(said)
            # What a job still in the queue will make cannot be looked at yet.
            manifest = stage.manifest() if before is None else None
            submission = stage.submission(manifest)
            if before:
                submission.cluster = replace(submission.cluster, dependency=None)  # that of the first stage
                submission.after(f"afterok:{before}")
            elif turn:
                submission.after(turn)
            known = stage.run.read().get("job_ids", [])
            submission.start()
            if stage.run.read().get("job_ids", []) != known:
                ours.append(stage.run)
            links.append(Link(stage, submission.job_id, submission.cluster.dependency))
    except BaseException as error:
        if isinstance(error, Refused) and error.is_full:
            missing = [stage.config.run.name for stage in stages[len(links) :]]
            missing += sweep.names[sweep.begun + 1 :]
            raise incomplete(error, missing, len(links) + len(sweep.taken)) from error
        for run in ours:
            job = run.read()["job_ids"][-1]
            if queue_state.cancel(run):
                run.update(state="cancelled", reason="a later stage of its chain was not queued")
                print(f"{run.path.name}: job {job} cancelled again", file=sys.stderr)
            else:
                print(f"{run.path.name}: job {job} could not be cancelled: scancel {job}", file=sys.stderr)
        raise
    sweep.begun += 1
    sweep.taken += [link.job for link in links if link.job][-1:]
    return links


def done_since(run: RunFolder, *sources: RunFolder) -> bool:
    """Whether a run ended well after the runs it was made from had saved last."""
    record = run.read()
    if record.get("state") != "done":
        return False
    attempts = record.get(ATTEMPTS)  # a queued stage is submitted long before the stage before it has ended
    began = attempts[-1]["time"] if attempts else record.get("submitted", 0.0)
    return all(not source.latest.exists() or source.latest.stat().st_mtime < began for source in sources)
