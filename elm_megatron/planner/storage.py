"""What a run will write, against the room there is: bytes and files of its checkpoints and logs. Torch-free.

A checkpoint holds fp32 weights and AdamW's two moments of every trained parameter, 12 bytes each, in
`WRITERS` files a rank. The room is what the file system says is free, and what quotas leave: those that its
tools report (quota.py), and those of the site's YAML.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from conf.errors import InputError
from conf.schema.cluster import SiteConfig
from conf.schema.train import TrainConfig
from elm_megatron.planner import quota

BYTES_PER_PARAMETER = 12
WRITERS = 2  # files of a rank in a checkpoint, as checkpoint/save.py writes them
MANIFEST_BYTES = 400  # of one shard's entry, about; a layer has some 10
ROW_BYTES = 900  # a logged step: a line of metrics.jsonl and TensorBoard's seven numbers
SAMPLE_BYTES = 10  # an id in samples.jsonl
RUN_BYTES, RUN_FILES = 5_000_000, 12  # config, curves, logs and what else a run has once
LOG_FILES = 2  # of a rank and attempt
GB, GIB = 1e9, 2**30
LOOKED_AT = 10_000  # files of a folder whose age is asked


@dataclass(frozen=True)
class Need:
    """What a run has on the disk at its largest.

    Attributes:
        checkpoint_bytes: of one checkpoint.
        checkpoints: at the same time: those kept, and the one being written.
        log_bytes: of everything else.
        files: all of them.
    """

    checkpoint_bytes: int
    checkpoints: int
    log_bytes: int
    files: int

    @property
    def bytes(self) -> int:
        """All together."""
        return self.checkpoint_bytes * self.checkpoints + self.log_bytes


@dataclass(frozen=True)
class Room:
    """What a folder may take, None where it is not known.

    Attributes:
        folder: the nearest one that exists.
        bytes: free ones.
        files: free ones.
        basis: where the smaller of the limits comes from.
    """

    folder: Path
    bytes: int | None
    files: int | None
    basis: str


def need(trained: int, train: TrainConfig, steps: int | None, ranks: int) -> Need:
    """What a run will write.

    Args:
        trained: parameters that are trained and saved.
        train: how often is saved and logged, and what is kept.
        steps: of the run; None when that is known only once the data are read.
        ranks: of the job.
    """
    made = None if steps is None else -(-steps // train.save_every)
    milestones = (steps or 0) // train.keep_every if train.keep_every else 0
    kept = train.keep_last + milestones + int(train.keep_best)
    checkpoints = (kept if made is None else min(kept, made)) + 1
    rows = (steps or 0) // train.log_every
    sampled = train.consumed(steps or 0) if train.log_sample_ids else 0
    return Need(
        checkpoint_bytes=trained * BYTES_PER_PARAMETER + ranks * 10 * MANIFEST_BYTES,
        checkpoints=checkpoints,
        log_bytes=RUN_BYTES + rows * ROW_BYTES + sampled * SAMPLE_BYTES,
        files=checkpoints * (ranks * WRITERS + 1) + ranks * LOG_FILES + RUN_FILES,
    )


def room(folder: Path, site: SiteConfig) -> Room:
    """What the file system of a folder has free, or where that is smaller a quota.

    Quotas are those that the file system's own tools report, and those of the site's YAML.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    files = found.f_favail if found.f_files else None
    limits = [(free, files, f"free on {there}")]
    limits += [(one.bytes, one.files, f"left by {one.basis}") for one in quota.left(there)]
    home = Path.home()
    if there.resolve().is_relative_to(home.resolve()) and (site.home_gb or site.home_files):
        allowed = None if site.home_gb is None else int(site.home_gb * GIB)
        limits.append((allowed, site.home_files, f"the quota of {home}"))
    if site.scratch and site.scratch_files and there.is_relative_to(site.scratch):
        limits.append((None, site.scratch_files, f"the quota of {site.scratch}"))
    sizes = [limit for limit in limits if limit[0] is not None]
    counts = [limit[1] for limit in limits if limit[1] is not None]
    smallest = min(sizes, key=lambda limit: limit[0] or 0)
    return Room(there, smallest[0], min(counts) if counts else None, smallest[2])


def used(run: Path) -> tuple[int, int]:
    """Bytes and files that a run's checkpoints take already; a resumed run needs them no more."""
    size = count = 0
    for path in (run / "checkpoints").glob("step-*/*"):
        if path.is_file():
            size, count = size + path.stat().st_size, count + 1
    return size, count


def describe(wanted: Need, there: Room) -> str:
    """One line for people."""
    text = (
        f"{_gigabytes(wanted.bytes)}: {wanted.checkpoints} checkpoints of "
        f"{_gigabytes(wanted.checkpoint_bytes)} and logs, {wanted.files:,} files"
    )
    free = [] if there.bytes is None else [_gigabytes(there.bytes)]
    free += [] if there.files is None else [f"{there.files:,} files"]
    return f"{text}; of {' and '.join(free)} ({there.basis})" if free else text


def require_fits(wanted: Need, run: Path, site: SiteConfig) -> Room:
    """Refuse a run that does not fit where it would be written; returns the room there is.

    Raises:
        InputError: naming the folder, the bytes or files, and what makes it smaller.
    """
    there, (size, count) = room(run, site), used(run)
    smaller = (
        "give run.dir on another file system, or lower keep_last, raise or drop keep_every, or raise "
        "save_every"
    )
    if there.bytes is not None and wanted.bytes - size > there.bytes:
        raise InputError(
            f"run.dir={run}: the run will write {_gigabytes(wanted.bytes)} ({wanted.checkpoints} checkpoints "
            f"of {_gigabytes(wanted.checkpoint_bytes)}), and {_gigabytes(there.bytes)} is {there.basis}; "
            f"{smaller}."
        )
    if there.files is not None and wanted.files - count > there.files:
        raise InputError(
            f"run.dir={run}: the run will write {wanted.files:,} files, and {there.files:,} can be made on "
            f"{there.folder}; {smaller}."
        )
    return there


def expiry(folder: Path, site: SiteConfig) -> datetime | None:
    """When the site begins to delete what is in a folder; None where it does not, or the folder is empty.

    A file is deleted `site.scratch_days` after it was last used.
    """
    if not (site.scratch and site.scratch_days and folder.absolute().is_relative_to(site.scratch)):
        return None
    files = (path for path in folder.rglob("*") if path.is_file())
    times = [max(s.st_mtime, s.st_atime) for s in (p.stat() for p in itertools.islice(files, LOOKED_AT))]
    if not times:
        return None
    return datetime.fromtimestamp(min(times), UTC) + timedelta(days=site.scratch_days)


def _gigabytes(size: float) -> str:
    return f"{size / GB:,.1f} GB" if size >= GB / 10 else f"{size / 1e6:,.1f} MB"
