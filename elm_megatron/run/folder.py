"""A run's folder, and the one reader and writer of its run.json.

    runs/<name>/config.yaml  run.json  metrics.jsonl  valid.jsonl  tensorboard/  checkpoints/  logs/

run.json is written by the submitter until the first rank starts, then by rank 0, and by any rank that fails;
one at a time, and by an atomic rename, so that a reader (the queue tracker, a person) never sees half a file.

An attempt is one start of the job, [job id, restart]; run.json's key `life` names the one that owns the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conf.errors import InputError
from data_prep import files

SCHEMA = 1
LOCK_SECONDS = 10.0
STATES = ("submitted", "running", "requeued", "held", "cancelled", "failed", "done")
OWNER = "life"  # run.json: the attempt that owns the run, [job id, restart]
ATTEMPTS = "lives"  # run.json: every attempt so far. Both names are those of the first version.
_threads = threading.Lock()  # run.json has one writer at a time, also where the file system has no locks


class Superseded(RuntimeError):
    """A later attempt owns the run: this task writes nothing any more."""


def git_commit() -> str:
    """The suite's own commit, with '+changes' when the tree differs from it; 'unknown' outside git."""
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=here,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"],
            cwd=here,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if dirty else "")


class RunFolder:
    """One run's folder.

    Args:
        path: the folder; it need not exist yet.
        attempt: a rank's own [job id, restart]; it then writes nothing once run.json names another attempt.
    """

    def __init__(self, path: Path | str, attempt: list[Any] | None = None):
        self.path, self.attempt = Path(path).absolute(), attempt
        self.config = self.path / "config.yaml"
        self.run_json = self.path / "run.json"
        self.metrics = self.path / "metrics.jsonl"
        self.lost_metrics = self.path / "metrics.lost.jsonl"
        self.valid = self.path / "valid.jsonl"
        self.samples = self.path / "samples.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.latest = self.checkpoints / "latest"
        self.logs = self.path / "logs"

    def create(self) -> None:
        """Make the folder and its logs/, readable by the owner alone (0700); `sharing.share` opens it.

        Raises:
            InputError: the place cannot be written.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as e:
            raise InputError(f"run.dir={self.path}: cannot be written ({e.strerror}).") from e

    def read(self) -> dict[str, Any]:
        """run.json as a dict, or {} when there is none yet.

        Raises:
            InputError: the file is not a record in JSON, or was written by a newer suite.
        """
        try:
            data = json.loads(self.run_json.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (json.JSONDecodeError, UnicodeDecodeError) as e:
            raise InputError(f"{self.run_json}: not readable as JSON ({e}).") from e
        if not isinstance(data, dict):
            raise InputError(f"{self.run_json}: does not hold a run's record.")
        if data.get("schema") != SCHEMA:
            raise InputError(
                f"{self.run_json}: schema {data.get('schema')!r}, this suite reads schema {SCHEMA}."
            )
        return data

    def update(self, *, unless: str | None = None, **fields: Any) -> dict[str, Any]:
        """Set fields of run.json and stamp `updated` (UTC epoch seconds); returns the whole record.

        Args:
            unless: a state in which nothing is written, asked under the same lock.

        Raises:
            Superseded: another attempt owns the run.
            InputError: the disk is full.
        """
        state = fields.get("state")
        if state is not None and state not in STATES:
            raise ValueError(f"state {state!r} is not one of {STATES}")
        with _threads, _locked(self.path):
            before = self.read()
            if unless is not None and before.get("state") == unless:
                return before
            if self.attempt is not None:
                self._require_owner(before, self.attempt)
            data = {"schema": SCHEMA, **before, **fields, "updated": time.time()}
            text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
            with files.full_disk_named(self.path, len(text.encode()), self.run_json.name):
                files.write(self.run_json, text)
        return data

    def require_ownership(self, attempt: list[Any]) -> None:
        """Refuse to go on for a task whose node was given up: a newer attempt has started.

        Raises:
            Superseded: another attempt owns the run.
        """
        self._require_owner(self.read(), attempt)

    def _require_owner(self, record: dict[str, Any], attempt: list[Any]) -> None:
        owner = record.get(OWNER)
        if owner is not None and owner != attempt:
            raise Superseded(f"{self.path} belongs to job {owner[0]} (restart {owner[1]}) now.")

    def latest_step(self) -> int | None:
        """The step named by checkpoints/latest, or None before the first save."""
        try:
            return int(self.latest.read_text(encoding="utf-8").strip().removeprefix("step-"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def read_metrics(self, path: Path | None = None) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl (or of valid.jsonl, given as `path`), in file order.

        A last line that is still being written is left out.
        """
        path = path or self.metrics
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1] if line]

    def cut_after(self, step: int) -> int:
        """Take rows after `step` out of what a run logs by step; returns how many training rows.

        They are kept in metrics.lost.jsonl, because the resumed run writes these steps again.
        A torn last line is dropped. The files are new ones afterwards, so that a task of an earlier attempt
        that still has the old ones open (`Rows`) writes into nothing.
        """
        lost = 0
        for path in (self.metrics, self.valid, self.samples):
            rows = self.read_metrics(path)
            gone = [row for row in rows if row["step"] > step]
            if path.exists():
                kept = [row for row in rows if row["step"] <= step]
                text = "".join(json.dumps(row) + "\n" for row in kept)
                with files.full_disk_named(self.path, len(text), path.name):
                    files.write(path, text)
            for row in gone if path != self.samples else []:
                append_jsonl(self.lost_metrics, row)
            lost += len(gone) if path == self.metrics else 0
        return lost


class Rows:
    """A file of JSON lines, opened once; each row is flushed before `append` returns.

    Raises:
        InputError: the disk is full.
    """

    def __init__(self, path: Path):
        self._path = path
        with files.full_disk_named(path.parent, 1, path.name):
            self._file = path.open("a", encoding="utf-8")

    def append(self, row: dict[str, Any]) -> None:
        """Add one row as a line."""
        line = json.dumps(row) + "\n"
        with files.full_disk_named(self._path.parent, len(line), f"a line of {self._path.name}"):
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        """Close the file; what a full disk has refused before is not written again."""
        with contextlib.suppress(OSError):
            self._file.close()


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Append one row as a line, flushed before returning."""
    line = json.dumps(row) + "\n"
    with (
        files.full_disk_named(path.parent, len(line), f"a line of {path.name}"),
        path.open("a", encoding="utf-8") as file,
    ):
        file.write(line)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep others out who take the same lock; it is on the folder itself and leaves no file in it.

    Continues without the lock if the file system has no locks, or after `LOCK_SECONDS`: a stopped task of an
    earlier attempt that has the lock must not stop the next attempt.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(files.Taken, OSError):
            if folder.is_dir():  # the lock of a folder that is gone would be a file in its place
                stack.enter_context(files.locked(folder, LOCK_SECONDS))
        yield
