"""A world of ranks on this machine: started, shown, watched to the end.

Each rank is a submitit task in a session of its own, so that Ctrl-C reaches only the launcher. The launcher
shows rank 0's output, ends the world within seconds when one rank dies in whatever way, turns Ctrl-C into
SIGTERM (save, then exit) and a second Ctrl-C into SIGKILL. It returns only when no process of it is left.
Ranks meet over the loopback interface.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from conf.errors import EXIT_INPUT
from data_prep.environment import scrubbed
from slurm.jobs.screen import say, warn

POLL_SECONDS = 0.05
GRACE_SECONDS = 3.0  # for the survivors of a dead rank, which can only fail to reach it
AGAIN_SECONDS = 1.0  # after which a SIGTERM is a second request and no part of the first
TAIL_LINES = 25
TASK_NOISE = b"submitit "  # submitit's own log lines stay in the log


@dataclass
class Rank:
    """One process of a local world.

    Attributes:
        process: the leader of its own session and group.
        stdout: its log.
        stderr: its log of warnings and errors.
        result: where submitit writes ("success", value) or ("error", traceback).
        ended: seconds on the monotonic clock at which it was first seen dead, None while it lives.
        shown: the log that is shown live, where it is not `stdout`.
    """

    number: int
    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path
    result: Path
    ended: float | None = None
    shown: Path | None = None

    def poll(self) -> int | None:
        """Exit status, None while it lives, negative for a signal."""
        status = self.process.poll()
        if status is not None and self.ended is None:
            self.ended = time.monotonic()
        return status

    def read_result(self) -> tuple[str, object]:
        """What submitit wrote for this rank, ("none", "") when it died before it could."""
        if not self.result.exists():
            return "none", ""
        return pickle.loads(self.result.read_bytes())  # written a moment ago by our own task

    def failed(self) -> bool:
        """Whether it is dead without having returned a value."""
        status = self.poll()
        return status is not None and (status != 0 or self.read_result()[0] != "success")

    def was_stopped(self) -> bool:
        """Whether a signal ended it, or it ended itself since it could not handle SIGTERM."""
        status = self.poll() or 0
        return status < 0 or status == 128 + signal.SIGTERM

    def signal(self, signum: int, group: bool = False) -> None:
        """Signal the rank, or with `group` everything it started too."""
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(self.process.pid, signum)
            elif self.poll() is None:
                os.kill(self.process.pid, signum)


@dataclass
class LocalWorld:
    """All ranks of one run on this machine.

    Attributes:
        ranks: their processes.
        refusal: where a rank leaves the sentence with which the job refused its input.
        grace: seconds that the survivors of a dead rank get to end by themselves.
        beside: called again and again while they live.
    """

    ranks: list[Rank]
    refusal: Path
    grace: float = GRACE_SECONDS
    beside: Callable[[], None] = lambda: None

    def watch(self, stop: StopRequest) -> int:
        """Wait for the world's end.

        Args:
            stop: what is asked of the launcher by signals.

        Returns:
            The exit status for the shell. 0: every rank returned "done". 128 + signal: stopped, after saving.
            2: the job refused its input. 1: a rank failed and its traceback was printed, or the job was told
            from outside to save and stop.
        """
        screen = Follower(self.ranks[0].shown or self.ranks[0].stdout)
        stop.watch(self.ranks)
        try:
            return self._until_end(screen, stop)
        finally:
            kill(self.ranks)
            screen.show()

    def _until_end(self, screen: Follower, stop: StopRequest) -> int:
        while any(rank.poll() is None for rank in self.ranks):
            screen.show()
            if stop.signum and not stop.said:
                stop.ask()  # ranks that started after the signal
                stop.said = True
                warn("\nSaving, then stopping; press Ctrl-C again to stop at once.")
            if stop.at_once:
                warn("\nStopped at once.")
                return 128 + (stop.signum or 0)
            if any(rank.failed() for rank in self.ranks):
                break  # the others would wait for it
            self.beside()
            time.sleep(POLL_SECONDS)
        failed = [rank for rank in self.ranks if rank.failed()]
        if stop.signum and all(rank.was_stopped() for rank in failed):
            return 128 + stop.signum
        if failed:
            return self._end_of_failed(screen)
        outcomes = {str(rank.read_result()[1]) for rank in self.ranks}
        if outcomes == {"done"}:
            return 0
        screen.show()
        warn("Saved and stopped by a signal; the same command goes on from there.")
        return 1

    def _end_of_failed(self, screen: Follower) -> int:
        """A rank died: end the others and say which one it was and why."""
        first = min((rank for rank in self.ranks if rank.failed()), key=_order)
        status = first.poll()
        for rank in self.ranks:
            rank.signal(signal.SIGTERM)
        until = time.monotonic() + self.grace
        while time.monotonic() < until and any(rank.poll() is None for rank in self.ranks):
            time.sleep(POLL_SECONDS)
        screen.show()
        if self.refusal.exists():
            warn(self.refusal.read_text(encoding="utf-8"))
            return EXIT_INPUT
        return report_failure(first, len(self.ranks), status or 0)


def _order(rank: Rank) -> tuple[bool, float]:
    """Sorts dead ranks by who went first: one killed by a signal did not follow another's failure."""
    died = rank.result.stat().st_mtime if rank.result.exists() else 0.0
    return (rank.poll() or 0) >= 0, died


def report_failure(rank: Rank, ranks: int, status: int) -> int:
    """Print why a rank ended; returns the exit status that goes with it."""
    kind, value = rank.read_result()
    name = f"rank {rank.number} of {ranks}"
    if status < 0:
        warn(f"\n{name} was killed by {signal.Signals(-status).name}.")
    else:
        warn(f"\n{name} failed with exit status {status}.")
    if kind == "error":
        warn(str(value).strip())
    else:
        warn("\n".join(tail(rank.stderr) or tail(rank.stdout)))
    warn(f"Logs: {rank.stdout} and {rank.stderr.name}")
    return 1


def tail(path: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a log, without the launcher library's own."""
    if not path.exists():
        return []
    kept = [line for line in path.read_bytes().splitlines() if not line.startswith(TASK_NOISE)]
    return [line.decode("utf-8", errors="replace") for line in kept[-lines:]]


class Follower:
    """Shows what is added to a log, line by line, without the launcher library's own lines."""

    def __init__(self, path: Path):
        self.path = path
        self.offset = path.stat().st_size if path.exists() else 0
        self.rest = b""

    def show(self) -> None:
        """Print the whole lines that came since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            new = file.read()
        self.offset += len(new)
        *lines, self.rest = (self.rest + new).split(b"\n")
        for line in lines:
            if not line.startswith(TASK_NOISE):
                say(line.decode("utf-8", errors="replace"))


@dataclass
class StopRequest:
    """What SIGINT, SIGTERM and SIGHUP ask of a launcher; each is remembered, and told to the ranks at once.

    The ranks are told in the signal's handler, since the launcher itself may be waiting in a print for a
    screen that does not move. The first signal asks them to save. Others that come with it, as SIGHUP with
    SIGTERM from a session that ends, ask for the same. A later Ctrl-C means no more patience.

    Attributes:
        ranks: who is told.
        signum: the first signal, None before it.
        said: whether the person was told what another Ctrl-C does.
        at_once: whether the ranks are to be ended now.
    """

    ranks: list[Rank] = field(default_factory=list)
    signum: int | None = None
    said: bool = False
    at_once: bool = False
    _since: float = 0.0
    _unasked: list[Rank] = field(default_factory=list)

    def ask(self) -> None:
        """Ask every rank to save and to stop, once: another SIGTERM would end one that is about to leave."""
        while self._unasked:
            self._unasked.pop().signal(signal.SIGTERM)

    def watch(self, ranks: list[Rank]) -> None:
        """Take these ranks for those who are told."""
        self.ranks, self._unasked = ranks, list(ranks)

    def receive(self, signum: int, frame: FrameType | None = None) -> None:
        """Handle a signal."""
        if self.signum is None:
            self.signum, self._since = signum, time.monotonic()
            self.ask()
        elif self._is_again(signum):
            self.at_once = True
            for rank in self.ranks:
                rank.signal(signal.SIGKILL, group=True)

    def _is_again(self, signum: int) -> bool:
        if signum == signal.SIGINT:
            return self.said
        return signum == signal.SIGTERM and time.monotonic() - self._since > AGAIN_SECONDS


@contextlib.contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Let SIGINT, SIGTERM and SIGHUP be requests to the ranks; one that is ignored (nohup) stays ignored."""
    request, before = StopRequest(), {}
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) != signal.SIG_IGN:
            before[signum] = signal.signal(signum, request.receive)
    try:
        yield request
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)


def environment(base: dict[str, str], ranks: int, gpu: bool) -> dict[str, str]:
    """The environment of local ranks.

    Slurm's and MPI's variables are left out, they would make a rank take itself for part of another job.
    On a machine with GPUs `cluster.device=cpu` means the CPU: the GPUs are hidden.
    """
    cores = len(os.sched_getaffinity(0))
    env = scrubbed(base)
    env.setdefault("OMP_NUM_THREADS", str(max(1, cores // ranks)))
    env["PYTHONUNBUFFERED"] = "1"
    for library in ("GLOO", "NCCL"):  # the host name's address may go away while the ranks need each other
        env.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    if not gpu:
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env


def start(
    command: Sequence[str],
    logs: Sequence[tuple[Path, Path]],
    env: dict[str, str],
    rank_env: Sequence[dict[str, str]],
    results: Sequence[Path],
    inherit: Sequence[int] = (),
) -> list[Rank]:
    """Start one process per rank, each in a session of its own; all or none.

    Args:
        command: what every rank executes.
        logs: per rank the files for stdout and stderr, appended to.
        env: what all share.
        rank_env: per rank what differs.
        results: per rank the file of its result; stale ones are removed.
        inherit: file descriptors the ranks keep open.
    """
    started: list[Rank] = []
    try:
        for number, ((out, err), own, result) in enumerate(zip(logs, rank_env, results, strict=True)):
            result.unlink(missing_ok=True)
            with out.open("ab") as stdout, err.open("ab") as stderr:
                process = subprocess.Popen(
                    list(command),
                    env={**env, **own},
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                    pass_fds=inherit,
                )
            started.append(Rank(number, process, out, err, result))
    except BaseException:
        kill(started)
        raise
    return started


def kill(ranks: Sequence[Rank]) -> None:
    """End ranks and everything they started at once, and wait until they are gone."""
    for rank in ranks:
        rank.signal(signal.SIGKILL, group=True)
    for rank in ranks:
        rank.process.wait()
