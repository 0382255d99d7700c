"""The submitter's side of a run folder: is the run live, finished, or resumable, and what was handed in.

Written here: config.yaml, and run.json until the first rank starts (and after a local world has ended).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from conf.errors import InputError
from conf.plain import plain
from conf.schema.cluster import ClusterConfig
from data_prep import files
from elm_megatron.run import inputs
from elm_megatron.run.decay import last_before_decay
from elm_megatron.run.folder import OWNER, RunFolder, git_commit
from elm_megatron.run.resume import check_resume
from elm_megatron.sources import ownership
from elm_megatron.sources.places import run_config

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
        config: the checked configuration of this command, typed or as plain values.
        manifest_sha256: of the dataset as it is now, None for a verb that reads none.

    Returns:
        Why there is nothing to do (one sentence), or None when it can start or go on.

    Raises:
        InputError: the folder holds another run, or its config.yaml cannot be read.
    """
    record, asked = run.read(), plain(config)
    if not record:
        return None
    name = asked["run"]["name"]
    if run.config.exists():
        old = run_config(run)
        moved = inputs.moved(run, old, asked)
        if ownership.is_moved(run, old, asked):
            moved.add("source")
        check_resume(old, asked, asked["run"]["dir"], moved)
        for group in ("train", "tune"):
            loop = asked.get(group) or {}
            if loop.get("schedule") == "wsd" and loop.get("steps"):
                last_before_decay(run, loop["steps"], loop["wsd_decay_steps"], group)
    before = record.get("manifest_sha256")
    if None not in (before, manifest_sha256) and before != manifest_sha256:
        raise InputError(
            f"data.dir={asked['data']['dir']}: the dataset is not the one run {name} was started with "
            f"(manifest {before[:12]}, now {manifest_sha256[:12]}); give another run.name."
        )
    if record.get("state") == "done" and not _asks_more(record, asked):
        return f"{name} is finished: {record.get('step', '?')} steps, see {run.path}."
    return None


def _asks_more(record: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether more steps are asked for than before; of those asked for, an early stop may leave some."""
    steps = (asked.get("train") or asked.get("tune") or {}).get("steps")
    return steps is not None and steps > record.get("steps", record.get("step", steps))


def describe(name: str, cluster: ClusterConfig, verb: str, notify: Sequence[str] = ()) -> dict[str, Any]:
    """What run.json keeps of a submission."""
    slurm_conf = cluster.slurm_conf
    return {
        "state": "submitted",
        "reason": None,
        "verb": verb,
        "name": name,
        "cluster": cluster.name,
        "notify": list(notify),
        "mail_user": cluster.mail_user,
        "executor": cluster.executor,
        "slurm_conf": slurm_conf and str(Path(slurm_conf).absolute()),
        "git_commit": git_commit(),
        "versions": versions(),
        "submitted": time.time(),
        "submit_host": socket.gethostname(),
    }


def write(
    run: RunFolder,
    asked: dict[str, Any],
    description: dict[str, Any],
    job_id: str,
    owner: list[Any] | None = None,
) -> None:
    """Keep the configuration, and who handed in what, with the run.

    Args:
        run: its folder.
        asked: the configuration as plain values.
        description: what `describe` gives.
        job_id: the job.
        owner: the attempt that owns the run from now on; None leaves that to the first rank.
    """
    job_ids = [*run.read().get("job_ids", []), job_id]
    run.update(**description, **({OWNER: owner} if owner else {}), job_ids=job_ids)
    text = yaml.safe_dump(asked, sort_keys=False, allow_unicode=True)
    with files.full_disk_named(run.path, len(text.encode()), run.config.name):
        files.write(run.config, text)


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
    ours = {"config.yaml", "run.json", "lock", "logs", "rendezvous", "requests"}
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
    with contextlib.ExitStack() as held:
        try:
            descriptor: int | None = held.enter_context(files.locked(path))
        except files.Taken:
            raise AlreadyLive(path.read_text(encoding="utf-8").strip()) from None
        except OSError:  # some network file systems are mounted without locks
            descriptor = None
        if descriptor is not None:
            text = f"process {os.getpid()} on {socket.gethostname()}\n".encode()
            with files.full_disk_named(folder, len(text), path.name):
                os.truncate(descriptor, 0)
                os.write(descriptor, text)
        yield descriptor


class AlreadyLive(Exception):
    """Another job writes this run; the text says which."""
