"""What a person means by RUN or ID: a job of the queue, a run folder, or both.

4711, 4711_3, 4711+1      a job id
pretrain-large            a run's name: a job of that name or comment, or runs/pretrain-large here
runs/pretrain-large       a run's folder
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import InputError
from elm_megatron.run.folder import RunFolder
from slurm.tracker.listing import me
from slurm.tracker.poll import Picture
from slurm.tracker.runs import folder_of
from slurm.tracker.show import span
from slurm.tracker.squeue import Job

ID = re.compile(r"([0-9]+)([_+][0-9]+)?")


@dataclass
class Target:
    """A run or a job.

    Attributes:
        text: what was typed.
        job: its line of the queue, None when it neither waits nor runs.
        run: its run folder, None for a job that is no run of this suite.
        job_ids: ids of its jobs as far as they are known, the newest last.
    """

    text: str
    job: Job | None
    run: RunFolder | None
    job_ids: list[str]

    @property
    def job_id(self) -> str | None:
        """The id of its newest job."""
        return self.job.shown_id if self.job else next(reversed(self.job_ids), None)

    def record(self) -> dict[str, Any]:
        """Its run.json, {} when there is none that can be read."""
        if self.run is None:
            return {}
        try:
            return self.run.read()
        except (OSError, InputError):
            return {}


def check_id(wanted: str) -> str:
    """Refuse what is no job id; return it without its array task or heterogeneous part."""
    match = ID.fullmatch(wanted)
    if not match:
        raise InputError(
            f"id: found {wanted!r}; allowed are a job id, id_task or id+part, as 4711, 4711_3 or 4711+1"
        )
    return match[1]


def find_job(picture: Picture, wanted: str) -> Job:
    """The job with this id; an array's own id, or the id of a waiting task, finds the array's line.

    Raises:
        InputError: it is no id, no job of the queue has it, or jobs of several clusters have it.
    """
    base = check_id(wanted)
    exact = [job for job in picture.jobs if wanted in (job.shown_id, str(job.job_id))]
    family = [job for job in picture.jobs if job.array_id == int(base)]
    found = exact or [job for job in family if job.pending] or family
    if not found:
        when = f"as of {span(picture.age)} ago"
        raise InputError(
            f"id: found {wanted}, which neither waits nor runs, {when}; see elm-queue eff {base}"
        )
    if len(clusters := sorted({job.cluster for job in found})) > 1:
        raise InputError(
            f"id: found {wanted} on the clusters {' and '.join(clusters)}; say which: elm-queue --cluster "
            f"{clusters[0]}"
        )
    return found[0]


def resolve(picture: Picture, text: str) -> Target:
    """What `text` means.

    Raises:
        InputError: it is no job id, no name of a run here or in the queue, and no run's folder.
    """
    if ID.fullmatch(text):
        job = _job_or_none(picture, text)
        folder = folder_of(job.comment) if job else None
        return Target(text, job, RunFolder(folder) if folder else None, [text])
    folder = _folder_named(picture, text)
    if folder is None:
        raise InputError(
            f"run: found {text!r}; allowed are a job id, a run's folder, and the name of a run in ./runs or "
            f"of a job of {me()} in the queue"
        )
    run = RunFolder(folder)
    target = Target(text, None, run, [])
    target.job_ids = [str(one) for one in target.record().get("job_ids", [])]
    target.job = _job_of(picture, run, target.job_ids)
    return target


def _job_or_none(picture: Picture, wanted: str) -> Job | None:
    try:
        return find_job(picture, wanted)
    except InputError as error:
        if "clusters" in str(error):
            raise
        return None


def _folder_named(picture: Picture, text: str) -> Path | None:
    for folder in (Path(text), Path("runs") / text):
        if (folder / "run.json").is_file():
            return folder.absolute()
    mine = [job for job in picture.jobs if job.user == me()]
    named = {
        folder
        for job in mine
        if (folder := folder_of(job.comment)) and text in (job.name, folder.name, str(folder))
    }
    if len(named) > 1:
        listed = ", ".join(sorted(map(str, named)))
        raise InputError(f"run: found {text!r}, which several runs are called: {listed}")
    return next(iter(named), None)


def _job_of(picture: Picture, run: RunFolder, job_ids: list[str]) -> Job | None:
    """The run's job in the queue: by its comment, or by an id of run.json together with the run's name."""
    for job in picture.jobs:
        if folder_of(job.comment) == run.path:
            return job
    for job in picture.jobs:
        if not job.comment and str(job.job_id) in job_ids and job.name == run.path.name and job.user == me():
            return job
    return None
