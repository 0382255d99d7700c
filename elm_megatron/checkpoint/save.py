"""Where a checkpoint is written: committed atomically, by background threads, while training goes on.

    checkpoints/.step-00000200.<job>-<restart>.tmp/rank-00000-0.safetensors …   while being written
    checkpoints/step-00000200/manifest.json                                    committed
    checkpoints/latest                                                         names it, moved last

Every rank writes its files from a copy of its numbers, in threads of their own. Ranks learn from each other
that they are done by files alone, so that a save needs no collective. Rank 0 then writes the manifest with
the size and sha256 of every file, renames the folder and moves `latest`.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from data_prep import files
from elm_megatron.checkpoint import manifest
from elm_megatron.checkpoint.background import lower_priority, side_by_side
from elm_megatron.checkpoint.manifest import Checkpoint
from elm_megatron.checkpoint.retention import Retention
from elm_megatron.checkpoint.shards import Shard, split, write_file
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import leftovers, step_name
from elm_megatron.run.world import World

COMMIT_SECONDS = 1800
WRITERS = 2  # files of a rank, hashed and written side by side


class CheckpointSaver:
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

    def remove_leftovers(self) -> None:
        """Remove what killed saves have left; for rank 0, before any rank of this attempt saves."""
        for folder in leftovers(self._run):
            shutil.rmtree(folder, ignore_errors=True)

    def save(self, step: int, shards: list[Shard], state: dict[str, Any], blocking: bool = False) -> None:
        """Start writing a checkpoint; an earlier one must have been waited for.

        Args:
            step: updates done.
            shards: this rank's copies; nobody may change them afterwards.
            state: what rank 0 puts into the manifest beside the files: consumed_samples, tokens, …
            blocking: training waits for this save, so it is written at normal priority.
        """
        self._thread = threading.Thread(
            target=self._guarded, args=(step, shards, state, blocking), name=f"save-{step}", daemon=True
        )
        self._thread.start()

    def annotate(self, step: int, **facts: Any) -> None:
        """Add facts to the manifest of a committed step; for rank 0."""
        Checkpoint.open(self._run.checkpoints / step_name(step)).annotate(**facts)

    def check(self) -> None:
        """Raise what went wrong in a save that has ended; one under way is not waited for."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait until the save under way is written (rank 0: committed), and raise what went wrong in it.

        Raises:
            InputError: the disk is full.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _guarded(self, step: int, shards: list[Shard], state: dict[str, Any], blocking: bool) -> None:
        try:
            if not blocking:
                lower_priority()
            self._write(step, shards, state)
        except BaseException as error:
            self._error = error

    def _write(self, step: int, shards: list[Shard], state: dict[str, Any]) -> None:
        attempt = f"{self._world.job_id}-{self._world.restart}"
        temporary = self._run.checkpoints / f".{step_name(step)}.{attempt}.tmp"
        rank = f"rank-{self._world.rank:05d}"
        with files.full_disk_named(
            self._run.checkpoints,
            sum(shard.data.nbytes for shard in shards),
            f"rank {self._world.rank}'s part of the checkpoint of step {step}",
            self._last_good(),
        ):
            try:
                temporary.mkdir(parents=True, exist_ok=True)
                self._write_files(temporary, rank, shards)
            except OSError:
                _remove_part(temporary, rank)  # the reason of the failure must find room in run.json
                raise
            if self._world.rank == 0:
                self._commit(step, temporary, state)

    def _last_good(self) -> str:
        step = self._run.latest_step()
        return "no checkpoint was made yet" if step is None else f"the checkpoint of step {step} is whole"

    def _write_files(self, temporary: Path, rank: str, shards: list[Shard]) -> None:
        parts = split(shards, WRITERS)
        names = [f"{rank}-{part}.safetensors" for part in range(len(parts))]
        entries = side_by_side(
            [partial(write_file, temporary / name, part) for name, part in zip(names, parts, strict=True)]
        )
        files.write(temporary / f"{rank}.json", json.dumps(dict(zip(names, entries, strict=True))))

    def _commit(self, step: int, temporary: Path, state: dict[str, Any]) -> None:
        entries = self._collect(temporary)
        manifest.write(temporary, {"step": step, **state, "files": entries})
        files.sync_folder(temporary)
        final = self._run.checkpoints / step_name(step)
        self._run.require_ownership([self._world.job_id, self._world.restart])
        # A folder of this step is there when an earlier attempt wrote it and this one began before it.
        files.replace_folder(temporary, final)
        files.write(self._run.latest, f"{final.name}\n")
        self._run.update(checkpoint_step=step)
        try:
            self._retention.remove_old(self._run, final)
        except OSError as problem:  # what was saved is saved
            print(f"warning: an old checkpoint stays: {problem}", file=sys.stderr, flush=True)

    def _collect(self, temporary: Path) -> dict[str, Any]:
        """Wait for every rank's files; returns their entries for the manifest."""
        found: dict[str, Any] = {}
        deadline = time.monotonic() + COMMIT_SECONDS
        for rank in range(self._world.world_size):
            entries = temporary / f"rank-{rank:05d}.json"
            while not entries.exists():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"rank {rank} did not write {entries} within {COMMIT_SECONDS} s")
                time.sleep(0.02)
            for name, entry in json.loads(entries.read_text(encoding="utf-8")).items():
                size = (temporary / name).stat().st_size
                if size != entry["bytes"]:
                    raise RuntimeError(f"{name}: {size} bytes, rank {rank} wrote {entry['bytes']}")
                found[name] = entry
            entries.unlink()
        return found


def _remove_part(temporary: Path, rank: str) -> None:
    """Delete what a rank has written of a checkpoint that will not be."""
    for path in temporary.glob(f"{rank}[-.]*"):
        path.unlink(missing_ok=True)
