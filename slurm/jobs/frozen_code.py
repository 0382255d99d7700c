"""The code that a job runs: a copy made when it was handed in, so that editing the checkout changes no job.

    runs/.code/<hash>/      conf data_prep elm_megatron slurm launch …, and uncommitted.patch

Every attempt of a job, its successors and the stages queued behind it run the copy of their submission. Runs
whose code is the same share one copy. `python launch/<verb>.py` inside of it goes on by hand with that code.
A submission also removes copies that no run in progress needs and that nobody has used for a month.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from conf.errors import InputError
from elm_megatron.run.folder import RunFolder
from slurm.jobs.record import ACTIVE

FOLDER = ".code"
PARTS = ("conf", "data_prep", "elm_megatron", "slurm", "launch")
FILES = ("setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")
PATCH, COMMIT = "uncommitted.patch", "commit"
UNUSED_DAYS = 30


def place(root: Path, runs: Path) -> Path:
    """Where the copy of a checkout's present code is kept, beside the runs.

    Args:
        root: the checkout.
        runs: the folder that has the runs.
    """
    if root.parent.name == FOLDER:  # this is such a copy
        return root
    return runs.absolute() / FOLDER / digest(root)


@functools.cache
def digest(root: Path) -> str:
    """Hash of the names and bytes of all files that a job may need."""
    found = hashlib.sha256()
    for name in _names(root):
        data = (root / name).read_bytes()
        found.update(f"{name}\0{len(data)}\0".encode() + data)
    return found.hexdigest()[:16]


def freeze(root: Path, runs: Path) -> Path:
    """Copy a checkout's present code, unless it is there already; returns the copy."""
    final = place(root, runs)
    if final.exists():
        with contextlib.suppress(OSError):  # another user's
            os.utime(final)  # it is in use, `clean`
        return final
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    temporary.mkdir(mode=0o700, parents=True)
    try:
        for name in _names(root):
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target)
        (temporary / PATCH).write_bytes(_git(root, "diff", "HEAD", "--binary"))
        (temporary / COMMIT).write_bytes(_git(root, "rev-parse", "HEAD"))
        with contextlib.suppress(OSError):  # another submitter was faster
            temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def clean(runs: Path) -> int:
    """Remove the copies that nobody needs any more; returns how many.

    A copy is needed by every run that is handed in, runs, waits or is held. Of others the last use counts:
    the last submission of this very code, and the end of the last run that was made with it.

    Args:
        runs: the folder that has the runs.
    """
    folder, before = runs.absolute() / FOLDER, time.time() - UNUSED_DAYS * 86400
    try:
        old = [path for path in folder.iterdir() if path.stat().st_mtime < before]
    except OSError:
        return 0
    needed = _needed(runs, before) if old else set()
    removed = 0
    for path in old:
        if path.name in needed:
            continue
        gone = path.with_name(f".{path.name}.{os.getpid()}.gone")
        with contextlib.suppress(OSError):  # another user's, or another submitter was faster
            if path.stat().st_mtime < before:
                path.rename(gone)
                shutil.rmtree(gone)
                removed += 1
    return removed


def _needed(runs: Path, before: float) -> set[str]:
    """Names of the copies that a run in progress, or one that ended after `before`, was made with."""
    found = set()
    for path in runs.glob("*/run.json"):
        try:
            record = RunFolder(path.parent).read()
        except (OSError, InputError):
            continue
        if record.get("state") in ACTIVE or record.get("updated", 0.0) >= before:
            found.add(Path(str(record.get("code"))).name)
    return found


def _names(root: Path) -> list[str]:
    """Names of the files, below the root: those that git tracks, and new ones that it does not ignore."""
    listed = _git(root, "ls-files", "-z", "-co", "--exclude-standard", "--", *PARTS, *FILES).decode()
    if listed:
        names = [name for name in listed.split("\0") if name]
    else:
        found = [
            path for part in PARTS for path in (root / part).rglob("*") if "__pycache__" not in path.parts
        ]
        names = [str(path.relative_to(root)) for path in found if path.is_file()]
        names += [name for name in FILES if (root / name).exists()]
    return sorted(name for name in set(names) if (root / name).is_file())


def _git(root: Path, *words: str) -> bytes:
    """What git prints; nothing outside a repository."""
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""
