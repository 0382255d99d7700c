"""The submitter's side of a run folder: is the run live, finished, or resumable, and what was handed in.

Written here: config.yaml, and run.json until the first rank starts (and after a local world has ended).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from conf.compose import plain
from conf.errors import InputError
from elm_megatron.run.folder import RunFolder, git_commit, write_atomically
from elm_megatron.run.resume import check_resume
from elm_megatron.sources.source import run_config

PACKAGES = (
    "torch",
    "megatron-core",
    "transformer-engine",
    "numpy",
    "sentencepiece",
    "transformers",
    "submitit",
)
FOLDER = re.compile(r"[A-Za-z0-9À-ɏ][A-Za-z0-9À-ɏ ._=+,@~()-]*|[._][A-Za-z0-9À-ɏ._=+,@~()-]+")
ACTIVE = ("submitted", "running", "requeued", "held")


def resumable(run: RunFolder, config: Any, manifest_sha256: str | None) -> str | None:
    """Compare a run that exists with the one asked for.

    Args:
        run: its folder, which may not exist.
        config: the typed config of this command.
        manifest_sha256: of the dataset as it is now, None for a verb that reads none.

    Returns:
        Why there is nothing to do (one sentence), or None when it can start or go on.

    Raises:
        InputError: the folder holds another run, or its config.yaml cannot be read.
    """
    record = run.read()
    if not record:
        return None
    if run.config.exists():
        check_resume(run_config(run), plain(config), str(config.run.dir))
    before = record.get("manifest_sha256")
    if None not in (before, manifest_sha256) and before != manifest_sha256:
        raise InputError(
            f"data.dir={config.data.dir}: the dataset is not the one run {config.run.name} was started with "
            f"(manifest {before[:12]}, now {manifest_sha256[:12]}); give another run.name."
        )
    if record.get("state") == "done" and not _asks_more(record, config):
        return f"{config.run.name} is finished: {record.get('step', '?')} steps, see {run.path}."
    return None


def _asks_more(record: dict[str, Any], config: Any) -> bool:
    """Whether the command's step count lies beyond what was asked for, of which early stop may leave some."""
    part = getattr(config, "train", None) or getattr(config, "tune", None)
    steps = getattr(part, "steps", None)
    return steps is not None and steps > record.get("steps", record.get("step", steps))


def describe(config: Any, verb: str) -> dict[str, Any]:
    """What run.json keeps of a submission."""
    slurm_conf = config.cluster.slurm_conf
    return {
        "state": "submitted",
        "reason": None,
        "verb": verb,
        "name": config.run.name,
        "cluster": config.cluster.name,
        "executor": config.cluster.executor,
        "slurm_conf": slurm_conf and str(Path(slurm_conf).absolute()),
        "git_commit": git_commit(),
        "versions": versions(),
        "submitted": time.time(),
        "submit_host": socket.gethostname(),
    }


def write(run: RunFolder, config: Any, description: dict[str, Any], job_id: str) -> None:
    """Keep the resolved config, and who handed in what, with the run."""
    job_ids = [*run.read().get("job_ids", []), job_id]
    run.update(**description, job_ids=job_ids)
    write_atomically(run.config, yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True))


def close(run: RunFolder, status: int) -> None:
    """Write down how a local world ended, for a job that did not do so itself."""
    if status == 0:
        run.update(state="done", reason=None)
    elif status in (129, 130, 143):
        run.update(state="cancelled", reason=f"interrupted, exit status {status}")
    else:
        run.update(state="failed", reason=f"exit status {status}, see {run.logs}")


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


def missing(path: Path) -> list[Path]:
    """The folders that have to be made for `path`, innermost first."""
    path = path.absolute()
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def remove_unused(path: Path, made: list[Path]) -> None:
    """Take back a run folder made for a job that refused its input before it did anything."""
    ours = {"config.yaml", "run.json", "lock", "logs", "rendezvous"}
    if path.absolute() not in made or any(item.name not in ours for item in path.iterdir()):
        return
    shutil.rmtree(path)
    for folder in made[1:]:
        with contextlib.suppress(OSError):  # another run moved in
            folder.rmdir()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide on results; absent ones are left out."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@contextlib.contextmanager
def local_lock(folder: Path) -> Iterator[int | None]:
    """Hold a run folder for the local world of this process.

    The lock lives as long as any process holds the file open, so ranks that inherit it keep it even when
    their launcher was killed.

    Yields:
        The file descriptor to hand to the ranks, None where the file system knows no locks.

    Raises:
        AlreadyLive: another local world writes this run.
    """
    path = folder / "lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyLive(file.read().strip()) from None
        except OSError:  # some network file systems are mounted without locks
            yield None
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield file.fileno()


class AlreadyLive(Exception):
    """Another job writes this run; the text says which."""
