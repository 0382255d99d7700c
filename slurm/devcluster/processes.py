"""Starting, watching and ending processes by pid.

A pid file holds the pid and the kernel's start time of the process, because pids are used again: a pid whose
start time differs is somebody else's process and is left alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from conf.errors import InputError


@dataclass(frozen=True)
class Process:
    """One process: its pid and its start time in clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process with this pid now, or None when there is none (a zombie counts as none)."""
        try:
            # The second field is the command in parentheses and may itself hold spaces and parentheses.
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return Process.of(self.pid) == self

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def start(argv: list[str], environment: dict[str, str], log: Path, pid_file: Path) -> Process:
    """Start a daemon in its own session with its output appended to `log`, and record it in `pid_file`."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
    process = Process.of(child.pid)
    if process is None:
        raise InputError(f"{argv[0]} ended at once; see {log}")
    pid_file.write_text(f"{process.pid} {process.started}\n", encoding="utf-8")
    # The child outlives this command on purpose; without this, Popen warns when it is collected.
    child.returncode = 0
    return process


def recorded(pid_file: Path) -> Process | None:
    """The living process that `pid_file` names, or None."""
    try:
        pid, started = map(int, pid_file.read_text(encoding="utf-8").split())
    except (FileNotFoundError, ValueError):
        return None
    process = Process(pid, started)
    return process if process.alive() else None


def stop(processes: Iterable[Process], grace: float = 10.0) -> None:
    """Send SIGTERM, wait up to `grace` seconds, send SIGKILL to those left; return when all are gone."""
    processes = list(processes)
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        for process in processes:
            process.signal(number)
        if wait_until(lambda: not any(map(_reap, processes)), seconds, 0.02):
            return
    left = [process.pid for process in processes if process.alive()]
    raise InputError(f"process {left} does not end even after SIGKILL")


def _reap(process: Process) -> bool:
    """Collect the process if it is our own ended child; return whether it still lives."""
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return process.alive()


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Poll `condition` until it holds or `seconds` have passed; return whether it held."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


def with_environment(wanted: dict[str, str], *present: str) -> list[Process]:
    """All processes we may look into whose environment holds every `wanted` entry and every `present` name.

    This finds the step daemons and tasks of a Slurm, which leave their parent's session and process group.
    """
    entries = {f"{key}={value}".encode() for key, value in wanted.items()}
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            environment = set((folder / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        names = {entry.partition(b"=")[0].decode(errors="replace") for entry in environment}
        if entries <= environment and names.issuperset(present) and (process := Process.of(int(folder.name))):
            found.append(process)
    return found
