"""Checkpoints that commit atomically, are written while training goes on, and are verified before they load.

    checkpoints/.step-00000200.<job>-<restart>.tmp/rank-00000-0.safetensors …   while being written
    checkpoints/step-00000200/manifest.json                                    committed
    checkpoints/latest                                                         names it, moved last

Every rank writes its files from a copy of its numbers, in threads of their own. Ranks tell each other that
they are done by files alone, so that needs no collective. Rank 0 then writes the manifest with the size and
sha256 of every file, renames the folder and moves `latest`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from conf.errors import InputError
from conf.schema.train import TrainConfig
from elm_megatron.checkpoint.background import give_way, side_by_side
from elm_megatron.checkpoint.shards import Piece, Reader, sha256, split, write_file
from elm_megatron.run.folder import RunFolder, write_atomically
from elm_megatron.run.world import World

SCHEMA = 1
COMMIT_SECONDS = 1800
WRITERS = 2  # files of a rank, hashed and written side by side


def step_name(step: int) -> str:
    """Folder name of a step: 200 → step-00000200."""
    return f"step-{step:08d}"


@dataclass(frozen=True)
class Checkpoint:
    """One committed step folder.

    Attributes:
        folder: the step folder.
        manifest: its manifest.json.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Read the manifest of a step folder.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        path = folder / "manifest.json"
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            raise InputError(f"{path}: not readable ({e}).") from e
        if manifest.get("schema") != SCHEMA:
            raise InputError(f"{path}: schema {manifest.get('schema')!r}, this suite reads {SCHEMA}.")
        if folder.name.startswith("step-") and folder.name != step_name(manifest["step"]):
            raise InputError(f"{path}: says step {manifest['step']}, the folder's name another.")
        return cls(folder, manifest)

    @property
    def step(self) -> int:
        """Updates done when it was written."""
        return self.manifest["step"]

    def reader(self) -> Reader:
        """Reads its tensors; `verify` first."""
        return Reader(self.folder, self.manifest["files"])

    def verify(self, part: int = 0, parts: int = 1) -> None:
        """Check sizes and hashes of the files part, part + parts, … of the manifest.

        Raises:
            InputError: naming the first file that is missing or differs, and how.
        """
        for name in sorted(self.manifest["files"])[part::parts]:
            path, entry = self.folder / name, self.manifest["files"][name]
            if Path(name).name != name:
                raise InputError(f"{self.folder}: the manifest names a file outside the folder, {name!r}.")
            if not path.is_file():
                raise InputError(f"{path}: missing.")
            try:
                size = path.stat().st_size
                digest = sha256(path) if size == entry["bytes"] else None
            except OSError as e:
                raise InputError(f"{path}: not readable ({e}).") from e
            if size != entry["bytes"]:
                raise InputError(f"{path}: {size} bytes, the manifest says {entry['bytes']}.")
            if digest != entry["sha256"]:
                raise InputError(f"{path}: sha256 differs from the manifest's; the file was changed.")


def committed(run: RunFolder) -> list[Path]:
    """All step folders with a manifest, newest first."""
    found = run.checkpoints.glob("step-*/manifest.json")
    return sorted((path.parent for path in found), reverse=True)


def step_folder(run: RunFolder, step: int | None = None) -> Path:
    """The folder of a step, or of the newest one.

    Raises:
        InputError: the run has no such checkpoint; the sentence lists those it has.
    """
    folders = {int(path.name.removeprefix("step-")): path for path in committed(run)}
    if not folders:
        raise InputError(f"{run.path}: has no checkpoint yet.")
    if step is not None and step not in folders:
        raise InputError(
            f"{run.path}: has no checkpoint of step {step}; it has {', '.join(map(str, sorted(folders)))}."
        )
    return folders[max(folders) if step is None else step]


@dataclass(frozen=True)
class Retention:
    """Which committed checkpoints stay.

    Attributes:
        last: this many of the newest.
        every: also those of steps that this divides; None for none.
        best: also the one with the lowest validation loss.
    """

    last: int
    every: int | None = None
    best: bool = False

    @classmethod
    def of(cls, train: TrainConfig) -> Retention:
        """As configured."""
        return cls(train.keep_last, train.keep_every, train.keep_best)

    def stays(self, folders: list[Path]) -> set[Path]:
        """Of step folders, newest first, those to keep."""
        keep = set(folders[: self.last])
        checkpoints = [c for folder in folders if (c := _readable(folder))]
        if self.every:
            keep |= {c.folder for c in checkpoints if c.step % self.every == 0}
        measured = [c for c in checkpoints if c.manifest.get("valid_loss") is not None]
        if self.best and measured:
            keep.add(min(measured, key=lambda c: c.manifest["valid_loss"]).folder)
        return keep


def _readable(folder: Path) -> Checkpoint | None:
    with contextlib.suppress(InputError):
        return Checkpoint.open(folder)
    return None


class Checkpoints:
    """Saves one run's checkpoints from all ranks of a world.

    Args:
        run: the run's folder.
        world: this rank's place.
        retention: which committed checkpoints to keep; the others are removed.
    """

    def __init__(self, run: RunFolder, world: World, retention: Retention):
        self._run, self._world, self._retention = run, world, retention
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def sweep(self) -> None:
        """Remove what killed saves have left; for rank 0, before any rank of this life saves."""
        for leftover in self._run.checkpoints.glob(".step-*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)

    def save(self, step: int, pieces: list[Piece], state: dict[str, Any], hurry: bool = False) -> None:
        """Start writing a checkpoint; an earlier one must have been waited for.

        Args:
            pieces: this rank's copies; nobody may change them afterwards.
            state: what rank 0 puts into the manifest beside the files: consumed_samples, tokens, …
            hurry: training does not go on meanwhile, so that nothing is to be given way to.
        """
        self._thread = threading.Thread(
            target=self._guarded, args=(step, pieces, state, hurry), name=f"save-{step}", daemon=True
        )
        self._thread.start()

    def tell(self, step: int, **facts: Any) -> None:
        """Add facts to the manifest of a committed step; for rank 0."""
        checkpoint = Checkpoint.open(self._run.checkpoints / step_name(step))
        path = checkpoint.folder / "manifest.json"
        write_atomically(path, json.dumps({**checkpoint.manifest, **facts}))

    def check(self) -> None:
        """Raise what went wrong in a save that has ended; one under way is not waited for."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait until the save under way is written (rank 0: committed), and raise what went wrong in it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _guarded(self, step: int, pieces: list[Piece], state: dict[str, Any], hurry: bool) -> None:
        try:
            if not hurry:
                give_way()
            self._write(step, pieces, state)
        except BaseException as e:
            self._error = e

    def _write(self, step: int, pieces: list[Piece], state: dict[str, Any]) -> None:
        life = f"{self._world.job_id}-{self._world.restart}"
        temporary = self._run.checkpoints / f".{step_name(step)}.{life}.tmp"
        temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
        parts = split(pieces, WRITERS)
        rank = f"rank-{self._world.rank:05d}"
        names = [f"{rank}-{part}.safetensors" for part in range(len(parts))]
        entries = side_by_side(
            [partial(write_file, temporary / name, part) for name, part in zip(names, parts, strict=True)]
        )
        write_atomically(temporary / f"{rank}.json", json.dumps(dict(zip(names, entries, strict=True))))
        if self._world.rank == 0:
            self._commit(step, temporary, state)

    def _commit(self, step: int, temporary: Path, state: dict[str, Any]) -> None:
        files = {}
        deadline = time.monotonic() + COMMIT_SECONDS
        for rank in range(self._world.world_size):
            entries = temporary / f"rank-{rank:05d}.json"
            while not entries.exists():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"rank {rank} did not write {entries} within {COMMIT_SECONDS} s")
                time.sleep(0.02)
            for name, entry in json.loads(entries.read_text()).items():
                size = (temporary / name).stat().st_size
                if size != entry["bytes"]:
                    raise RuntimeError(f"{name}: {size} bytes, rank {rank} wrote {entry['bytes']}")
                files[name] = entry
            entries.unlink()
        manifest = {"schema": SCHEMA, "step": step, **state, "files": files}
        write_atomically(temporary / "manifest.json", json.dumps(manifest))
        _fsync_folder(temporary)
        final = self._run.checkpoints / step_name(step)
        self._require_ownership()
        if final.exists():
            shutil.rmtree(
                final
            )  # an earlier life wrote it, and it did not verify or this life would start there
        temporary.rename(final)
        _fsync_folder(self._run.checkpoints)
        write_atomically(self._run.latest, f"{final.name}\n")
        try:
            self._remove_old(final)
        except OSError as problem:  # what was saved is saved
            print(f"warning: an old checkpoint stays: {problem}", file=sys.stderr, flush=True)

    def _require_ownership(self) -> None:
        """A task that lost its node must not write after a newer one has started."""
        owner = self._run.read().get("life")
        mine = [self._world.job_id, self._world.restart]
        if owner is not None and owner != mine:
            raise RuntimeError(
                f"the run now belongs to job {owner[0]} (restart {owner[1]}); nothing was committed"
            )

    def _remove_old(self, newest: Path) -> None:
        folders = committed(self._run)
        for folder in set(folders) - self._retention.stays(folders) - {newest}:
            shutil.rmtree(folder)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
