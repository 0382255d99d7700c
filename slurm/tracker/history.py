"""The tracker's own memory: every attempt of every job that accounting knows, in one SQLite file.

Filled a piece at a time from sacct: what changed since the last time is read again and replaces what was
known. The key is (cluster, job id, submit time): a requeued job keeps its id and gets a new submit time.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, fields
from datetime import UTC, datetime
from pathlib import Path

from conf.errors import InputError
from slurm.tracker import cache, command, poll, sacct
from slurm.tracker.command import Unreachable
from slurm.tracker.poll import Picture
from slurm.tracker.runs import folder_of, progress_of
from slurm.tracker.sacct import Attempt
from slurm.tracker.squeue import Job

SCHEMA = 3
# Schema → what makes the next one of it.
CHANGES = {
    1: ("ALTER TABLE lives RENAME TO attempts", "DROP INDEX lives_end", "DROP INDEX lives_start"),
    2: ("ALTER TABLE attempts ADD COLUMN kind INTEGER",),
}
DAY = 86400
# How far the first filling goes back, where nobody asks for more.
FIRST_DAYS = 90
# Read again before the last time: slurmdbd may hear of a job's end a little later than it happened.
OVERLAP_SECONDS = 900
# One sacct call for so many days, so that a long history does not become one huge text; more days where they
# hold few attempts.
CHUNK_SECONDS = 7 * DAY
FEW = 5000
# A job that accounting says runs, and that the queue does not know, may have ended a moment ago.
RUNAWAY_SECONDS = 600

COLUMNS = tuple(field.name for field in fields(Attempt))
NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
# Whose, where and how large: what a report adds up by.
KIND = "user, account, partition, cluster, gpus, cpus, memory_mib"
# What is read again replaces what was known, except what only the queue knew.
UPDATE = ", ".join(
    {
        "gpus": "gpus = max(gpus, excluded.gpus)",
        "comment": "comment = CASE excluded.comment WHEN '' THEN comment ELSE excluded.comment END",
    }.get(name, f'"{name}" = excluded."{name}"')
    for name in COLUMNS
)
# Attempts that hold nodes now, in SQL.
RUNNING = """("end" IS NULL AND state IN ('RUNNING', 'SUSPENDED')
    AND attempts.rowid NOT IN (SELECT number FROM temp.runaway))"""
# Seconds that an attempt held its nodes up to :now, in SQL: one that runs cannot run beyond its limit.
HELD = """CASE WHEN "end" IS NULL THEN min(max(elapsed, :now - start), coalesce("limit", 1e18))
    ELSE elapsed END"""
INTEGERS = frozenset(
    {"submit", "eligible", "start", "end", "elapsed", "limit", "nodes", "cpus", "gpus"}
    | {"memory_mib", "energy_joules"}
)


class History:
    """The history file; made when it is missing.

    Args:
        path: the file; None for the user's own, or that of the group's folder.

    Raises:
        InputError: the file was written by a newer version or is no SQLite file.
    """

    def __init__(self, path: Path | None = None):
        if path is None:
            folder = cache.data_folder()
            path = folder and folder / "history.sqlite"
        self.path = path
        self.connection = self._open(path)

    def _open(self, path: Path | None) -> sqlite3.Connection:
        """The file's connection; one in memory, filled anew by each command, where no file can be written."""
        if path is not None:
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                with suppress(OSError):
                    os.fchmod(descriptor, cache.file_mode(path.parent))
                os.close(descriptor)
                connection = sqlite3.connect(path, timeout=60)
                self._prepare(connection, "DELETE" if cache.on_network(path) else "WAL")
                return connection
            except (OSError, sqlite3.OperationalError) as error:
                cache.note(f"{path} cannot be written ({error}); accounting is read anew by each command")
                self.path = None
            except sqlite3.DatabaseError as error:
                raise InputError(f"{path}: not readable as a history ({error})") from error
        connection = sqlite3.connect(":memory:")
        self._prepare(connection, "MEMORY")
        return connection

    def _prepare(self, connection: sqlite3.Connection, journal: str) -> None:
        """Make the tables, and bring those of an earlier version up to date."""
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("PRAGMA synchronous=NORMAL")
        columns = ", ".join(f'"{name}" {"INTEGER" if name in INTEGERS else "TEXT"}' for name in COLUMNS)
        with connection:
            connection.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value REAL)")
            connection.execute(f"INSERT OR IGNORE INTO meta VALUES ('schema', {SCHEMA})")
            (schema,) = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
            while schema in CHANGES:
                for line in CHANGES[schema]:
                    connection.execute(line)
                schema += 1
                connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (schema,))
            if schema != SCHEMA:
                raise InputError(f"{self.path}: schema {schema:g}, this version reads schema {SCHEMA}")
            for line in (
                f"CREATE TABLE IF NOT EXISTS attempts ({columns}, kind INTEGER, "
                "PRIMARY KEY (cluster, job_id, submit))",
                f"CREATE TABLE IF NOT EXISTS kinds (number INTEGER PRIMARY KEY, {KIND}, UNIQUE ({KIND}))",
                "CREATE INDEX IF NOT EXISTS attempts_new ON attempts (kind) WHERE kind IS NULL",
                'CREATE INDEX IF NOT EXISTS attempts_end ON attempts ("end", state, energy_joules)',
                "CREATE INDEX IF NOT EXISTS attempts_start ON attempts (partition, start)",
                "CREATE TABLE IF NOT EXISTS energy (folder TEXT, taken INTEGER, kwh REAL)",
                "CREATE INDEX IF NOT EXISTS energy_folder ON energy (folder, taken)",
            ):
                connection.execute(line)
        connection.execute("CREATE TEMP TABLE runaway (number INTEGER PRIMARY KEY)")

    def _meta(self, key: str) -> float | None:
        row = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    @property
    def synced(self) -> float | None:
        """When accounting was last read, UTC epoch seconds; None for a new file."""
        return self._meta("synced")

    # ---- filling

    def sync(self, days: float = FIRST_DAYS) -> int:
        """Read what changed since the last time from sacct; return how many attempts that were.

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
        """Read a span, up to now where `end` is None, piece by piece, and then note what is `known`.

        A piece that brought few attempts is followed by one twice as long, so that years before the first job
        cost few questions.
        """
        count, last, step = 0, time.time() if end is None else end, CHUNK_SECONDS
        while begin < last:
            after = begin + step
            brought = self.add(read(begin, end if after >= last else after))
            step = step * 2 if brought < FEW else CHUNK_SECONDS
            count += brought
            begin = after
        with self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", known.items())
        return count

    def add(self, attempts: list[Attempt]) -> int:
        """Store attempts, each in place of what was known of it, and the energy their runs report."""
        places = ", ".join("?" * len(COLUMNS))
        with self.connection:
            self.connection.executemany(
                f"INSERT INTO attempts ({NAMES}) VALUES ({places}) "
                f"ON CONFLICT DO UPDATE SET {UPDATE}, kind = NULL",
                map(astuple, attempts),
            )
        self._sort_by_kind()
        for comment, user in {(one.comment, one.user) for one in attempts if folder_of(one.comment)}:
            self._add_energy(comment, user)
        return len(attempts)

    def _sort_by_kind(self) -> None:
        """Give each new attempt the number of its kind, so that a report adds up numbers and not names."""
        names = KIND.removesuffix(", memory_mib").split(", ")
        same = " AND ".join(f"kinds.{name} = attempts.{name}" for name in names)
        same += " AND kinds.memory_mib = coalesce(attempts.memory_mib, 0)"
        with self.connection:
            self.connection.execute(
                f"INSERT OR IGNORE INTO kinds ({KIND}) SELECT DISTINCT user, account, partition, cluster, "
                "gpus, cpus, coalesce(memory_mib, 0) FROM attempts WHERE kind IS NULL"
            )
            self.connection.execute(
                f"UPDATE attempts SET kind = (SELECT number FROM kinds WHERE {same}) WHERE kind IS NULL"
            )

    def kinds(self) -> dict[int, tuple]:
        """(user, account, partition, cluster, gpus, cpus, MiB) of each kind by its number."""
        return {number: tuple(kind) for number, *kind in self.connection.execute("SELECT * FROM kinds")}

    def learn(self, jobs: Iterable[Job]) -> None:
        """Keep what the queue knows and accounting may not: comments, and GPUs where no site tracks them.

        Slurm's default accounting keeps neither; the attempt is the newest one of the job.
        """
        told = [
            (job.gpus, job.comment, job.cluster or command.cluster_name(), str(job.job_id), job.submit)
            for job in jobs
            if job.submit and (job.gpus or folder_of(job.comment))
        ]
        with self.connection:
            self.connection.executemany(
                "UPDATE attempts SET gpus = max(gpus, ?1), kind = NULL, "
                "comment = CASE comment WHEN '' THEN ?2 ELSE comment END "
                "WHERE cluster = ?3 AND job_id = ?4 AND submit = ?5 "
                "AND (gpus < ?1 OR comment = '' AND ?2 != '')",
                told,
            )
        self._sort_by_kind()

    def runaways(self, picture: Picture) -> list[Attempt]:
        """Attempts that run for ever in accounting, because it never heard of their end; counted nowhere.

        Their jobs are unknown to the controller, also among those that ended in the last minutes.
        """
        local = {job.cluster for job in picture.jobs if job.cluster} or {command.cluster_name()}
        known = {(str(job.job_id), job.submit) for job in picture.jobs}
        rows = self.connection.execute(
            """SELECT rowid, cluster, job_id, submit FROM attempts
            WHERE "end" IS NULL AND state IN ('RUNNING', 'SUSPENDED') AND start < ?""",
            (picture.taken - RUNAWAY_SECONDS,),
        )
        lost = [
            (number, job_id) for number, cluster, job_id, submit in rows
            if cluster in local and (job_id, submit) not in known
        ]  # fmt: skip
        if lost and picture.failure is None:
            try:
                listed = command.run(["squeue", "--all", "--noheader", "--states=all", "-O", "JobID"]).split()
            except Unreachable:
                return []
            numbers = [(number,) for number, job_id in lost if job_id not in listed]
            with self.connection:
                self.connection.execute("DELETE FROM temp.runaway")
                self.connection.executemany("INSERT INTO temp.runaway VALUES (?)", numbers)
        return self.attempts("rowid IN (SELECT number FROM temp.runaway)")

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
        if self.path is None:
            yield
            return
        with cache.locked(self.path.with_name(self.path.name + ".lock")):
            yield

    # ---- asking

    def attempts(self, where: str = "1", parameters: tuple[object, ...] = ()) -> list[Attempt]:
        """The attempts that fit an SQL condition, oldest submission first."""
        rows = self.connection.execute(
            f"SELECT {NAMES} FROM attempts WHERE {where} ORDER BY submit, job_id", parameters
        )
        return [Attempt(*row) for row in rows]

    def waits(self, partitions: str, nodes: int, limit: int | None, since: float) -> list[int]:
        """Sorted waits in seconds of started jobs like this one.

        Alike are jobs of one of the partitions with at most 1.5 times more or fewer nodes and at most twice
        the time limit or no less than half of it.
        """
        rows = self.connection.execute(
            """
            SELECT max(0, start - eligible) FROM attempts
            WHERE partition IN (SELECT value FROM json_each(?)) AND start >= ? AND eligible IS NOT NULL
              AND nodes BETWEEN ? AND ? AND "limit" BETWEEN ? AND ?
            ORDER BY 1
            """,
            (
                json.dumps(partitions.split(",")),
                *(since, nodes / 1.5, nodes * 1.5, (limit or 0) / 2, limit * 2 if limit else 2**62),
            ),
        )
        return [row[0] for row in rows]


def read(begin: float, end: float | None) -> list[Attempt]:
    """The attempts that accounting knows between two moments; None for "until now".

    Raises:
        Unreachable: sacct does not answer.
    """
    separator = command.separator()
    selection = ["--allusers", "-S", slurm_time(begin)] + (["-E", slurm_time(end)] if end else [])
    return sacct.parse(command.run(sacct.command(separator, *selection), timeout=300), separator)


def slurm_time(epoch: float) -> str:
    """UTC as sacct reads it (commands run with TZ=UTC)."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")
