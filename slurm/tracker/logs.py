"""The end of a job's log, read with care: the path is whatever the job's owner wrote."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from slurm.tracker.runs import folder_of
from slurm.tracker.show import escaped
from slurm.tracker.squeue import Job

TAIL_BYTES = 16 << 10
TAIL_LINES = 200


def log_path(job: Job) -> str:
    """The output file's path, "" when nothing says it.

    Some releases leave the pattern, and 22.05 gives an array task its raw id. Where Slurm's own path does not
    exist, the log of rank 0 in the run folder that the job's comment names is used.
    """
    path = _path_of(job)
    if not (path and Path(path).exists()) and (folder := folder_of(job.comment)):
        own = folder / "logs" / f"{job.job_id}_0_log.out"
        if own.is_file():
            return str(own)
    return path


def _path_of(job: Job) -> str:
    base, _, task = job.shown_id.partition("_")
    path = job.stdout
    if task:
        path = path.replace(f"/slurm-{job.job_id}.out", f"/slurm-{job.shown_id}.out")
    values = {"%A": base, "%a": task, "%j": str(job.job_id), "%u": job.user, "%x": job.name}
    return re.sub(r"%[Aajux]", lambda match: values[match[0]], path)


def log_tail(job: Job) -> str:
    """The last lines of the job's output file, escaped; a sentence when it cannot be read."""
    path = log_path(job)
    if not path:
        return "Slurm does not say where its log is."
    try:
        # A pipe would block, and only plain files are logs.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        return f"{escaped(path)} cannot be read: {error.strerror}"
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return f"{escaped(path)} is no plain file"
        file.seek(max(0, found.st_size - TAIL_BYTES))
        lines = file.read(TAIL_BYTES).decode(errors="replace").split("\n")
    shown = [escaped(line) for line in lines[-TAIL_LINES:]]
    return "\n".join([escaped(path), "", *shown])
