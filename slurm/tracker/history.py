"""The tracker's own memory: every life of every job that accounting knows, in one SQLite file.

Filled a piece at a time from sacct: what changed since the last time is read again and replaces what was
known. The key is (cluster, job id, submit time): a requeued job keeps its id and gets a new submit time.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, fields
from datetime import UTC, datetime
from pathlib import Path

from conf.errors import InputError
from slurm.tracker import command, poll, sacct
from slurm.tracker.runs import folder_of, progress_of
from slurm.tracker.sacct import Life

SCHEMA = 1
DAY = 86400
# How far the first filling goes back, where nobody asks for more.
FIRST_DAYS = 90
# Read again before the last time: slurmdbd may hear of a job's end a little later than it happened.
OVERLAP_SECONDS = 900
# One sacct call for so many days, so that a long history does not become one huge text.
CHUNK_SECONDS = 7 * DAY

COLUMNS = tuple(field.name for field in fields(Life))
INTEGERS = frozenset(
    {"submit", "eligible", "start", "end", "elapsed", "limit", "nodes", "cpus", "gpus"}
    | {"memory_mib", "energy_joules"}
)


def default_path() -> Path:
    """Beside the shared picture where an admin set that up, else in the user's data folder."""
    if os.environ.get("ELM_QUEUE_CACHE"):
        return poll.cache_folder() / "history.sqlite"
    base = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    return base / "elm-queue" / poll.cache_folder().name / "history.sqlite"


class History:
    """The history file; made when it is missing.

    Args:
        path: The file, `default_path()` when None.

    Raises:
        InputError: The file was written by a newer version or is no SQLite file.
    """

    def __init__(self, path: Path | None = None):
        self.path = path or default_path()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        self.connection = sqlite3.connect(self.path, timeout=60)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self.path}: not readable as a history ({error})") from error

    def _prepare(self) -> None:
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        columns = ", ".join(f'"{name}" {"INTEGER" if name in INTEGERS else "TEXT"}' for name in COLUMNS)
        with self.connection:
            self.connection.executescript(
                f"""
                CREATE TABLE IF NOT EXISTS lives ({columns}, PRIMARY KEY (cluster, job_id, submit));
                CREATE INDEX IF NOT EXISTS lives_end ON lives ("end", state, energy_joules);
                CREATE INDEX IF NOT EXISTS lives_start ON lives (partition, start);
                CREATE TABLE IF NOT EXISTS energy (folder TEXT, taken INTEGER, kwh REAL);
                CREATE INDEX IF NOT EXISTS energy_folder ON energy (folder, taken);
                CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value REAL);
                INSERT OR IGNORE INTO meta VALUES ('schema', {SCHEMA});
                """
            )
        if self._meta("schema") != SCHEMA:
            raise InputError(
                f"{self.path}: schema {self._meta('schema')}, this version reads schema {SCHEMA}"
            )

    def _meta(self, key: str) -> float | None:
        row = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    @property
    def synced(self) -> float | None:
        """When accounting was last read, UTC epoch seconds; None for a new file."""
        return self._meta("synced")

    # ---- filling

    def sync(self, days: float = FIRST_DAYS) -> int:
        """Reads what changed since the last time from sacct; returns how many lives that were.

        Within `poll.max_age()` of the last time nothing new is asked. What lies further back than the file
        reaches, up to `days`, is read once.

        Raises:
            Unreachable: sacct does not answer; what was known stays.
        """
        with self._lock():
            now = time.time()
            wanted, synced = now - days * DAY, self.synced
            if synced is None:
                return self._read(wanted, None, {"first": wanted, "synced": now})
            count = 0
            first = self._meta("first") or synced - FIRST_DAYS * DAY
            if wanted < first:
                count += self._read(wanted, first, {"first": wanted})
            if not 0 <= now - synced < poll.max_age():
                count += self._read(min(synced, now) - OVERLAP_SECONDS, None, {"synced": now})
        return count

    def _read(self, begin: float, end: float | None, known: dict[str, float]) -> int:
        """Reads a span, up to now where `end` is None, piece by piece, and then notes what is `known`."""
        count, last = 0, time.time() if end is None else end
        while begin < last:
            after = begin + CHUNK_SECONDS
            count += self.add(read(begin, end if after >= last else after))
            begin = after
        with self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", known.items())
        return count

    def add(self, lives: list[Life]) -> int:
        """Stores lives, each in place of what was known of it, and the energy their runs report."""
        places = ", ".join("?" * len(COLUMNS))
        with self.connection:
            self.connection.executemany(
                f"INSERT OR REPLACE INTO lives VALUES ({places})", (astuple(life) for life in lives)
            )
        for comment, user in {(life.comment, life.user) for life in lives if folder_of(life.comment)}:
            self._add_energy(comment, user)
        return len(lives)

    def _add_energy(self, comment: str, user: str) -> None:
        run = progress_of(comment, user)
        if run is None or run.kwh is None:
            return
        folder = str(run.folder)
        known = self.connection.execute(
            "SELECT kwh FROM energy WHERE folder = ? ORDER BY taken DESC LIMIT 1", (folder,)
        ).fetchone()
        if known is None or known[0] != run.kwh:
            with self.connection:
                self.connection.execute("INSERT INTO energy VALUES (?, ?, ?)", (folder, time.time(), run.kwh))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with self.path.with_name(self.path.name + ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # ---- asking

    def lives(self, where: str = "1", parameters: tuple[object, ...] = ()) -> list[Life]:
        """The lives that fit an SQL condition, oldest submission first."""
        rows = self.connection.execute(
            f"SELECT * FROM lives WHERE {where} ORDER BY submit, job_id", parameters
        )
        return [Life(*row) for row in rows]

    def waits(self, partition: str, nodes: int, limit: int | None, since: float) -> list[int]:
        """Sorted waits in seconds of started jobs like this one.

        Alike are jobs of the same partition with at most 1.5 times more or fewer nodes and at most twice the
        time limit or no less than half of it.
        """
        rows = self.connection.execute(
            """
            SELECT max(0, start - eligible) FROM lives
            WHERE partition = ? AND start >= ? AND eligible IS NOT NULL
              AND nodes BETWEEN ? AND ? AND "limit" BETWEEN ? AND ?
            ORDER BY 1
            """,
            (partition, since, nodes / 1.5, nodes * 1.5, (limit or 0) / 2, limit * 2 if limit else 2**62),
        )
        return [row[0] for row in rows]


def read(begin: float, end: float | None) -> list[Life]:
    """The lives that accounting knows between two moments; None for "until now".

    Raises:
        Unreachable: sacct does not answer.
    """
    separator = command.separator()
    selection = ["--allusers", "-S", slurm_time(begin)] + (["-E", slurm_time(end)] if end else [])
    return sacct.parse(command.run(sacct.command(separator, *selection), timeout=300), separator)


def slurm_time(epoch: float) -> str:
    """UTC as sacct reads it (commands run with TZ=UTC)."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")
