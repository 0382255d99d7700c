"""Is every rank alive? Each rank beats in a file of its own and listens to the next one.

A stopped or frozen process cannot say so, and rank 0's store dies with rank 0; so the ranks stand in a ring
and each watches its successor. Whoever hears nothing for the set time names the silent rank and ends its own
process; the launcher (or srun) then ends the whole world, the silent rank by SIGKILL.

A beat holds the rank's host, its step, and the collective that it is in. So a rank whose collective fails
(a timeout, a connection that is gone) can say which ranks did not come to it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from elm_megatron.run.world import World

EXIT_STALLED = 75
COLLECTIVES, LIBRARY = "/torch/distributed/distributed_c10d.py", "/torch/"  # in a file's path
MOST_NAMED = 3  # ranks, in a sentence


class Heartbeat:
    """Beats for this rank and listens to the next.

    Args:
        world: this rank's place; files lie in its rendezvous folder.
        stall_seconds: silence after which a rank counts as stalled.
    """

    def __init__(self, world: World, stall_seconds: float):
        self._world, self._stall = world, stall_seconds
        self._interval = min(5.0, max(0.2, stall_seconds / 10))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._main, self._host = threading.get_ident(), socket.gethostname().split(".")[0]
        self.step = 0

    def start(self) -> None:
        """Begin; call after the world has formed."""
        self._thread.start()

    def stop(self) -> None:
        """Say goodbye, so that the listener does not wait for more beats."""
        self._stop.set()
        self._thread.join()
        self._beat("left")

    def _file(self, rank: int) -> Path:
        return self._world.rendezvous / f"alive-{self._world.job_id}-{self._world.restart}-{rank}"

    def _beat(self, word: str) -> None:
        path = self._file(self._world.rank)
        temporary = path.with_suffix(".tmp")
        where = place_of(_stack(sys._current_frames().get(self._main)))
        temporary.write_text(f"{word} {self._host} {where} {self.step}\n", encoding="utf-8")
        temporary.replace(path)

    def _run(self) -> None:
        watched = (self._world.rank + 1) % self._world.world_size
        heard = turned = time.monotonic()
        last, count = "", 0
        while not self._stop.wait(self._interval):
            count += 1
            try:
                self._beat(str(count))
                text = self._file(watched).read_text(encoding="utf-8")
            except FileNotFoundError:
                text = ""
            except OSError:
                continue  # a file system that hesitates is no reason to die
            now = time.monotonic()
            # Where this rank itself stood still (suspended, or waiting for its files), so may the other have.
            stood_still = now - turned > self._interval + self._stall / 2
            if text != last or text.startswith("left") or stood_still:
                heard, last = now, text
            elif now - heard > self._stall:
                self._give_up(watched, last, now - heard)
            turned = now

    def _give_up(self, rank: int, last: str, seconds: float) -> None:
        known = last.split()
        host, last_seen = (f" on {known[1]}", _last_seen(known)) if known else ("", "last at its start")
        print(
            f"rank {rank}{host} has not been heard of for {seconds:.0f} s ({last_seen}); "
            f"rank {self._world.rank} on {self._host} ends the job",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_STALLED)

    def account(self, error: BaseException) -> str:
        """Where this rank and those that it may have waited for are, after its main thread has failed.

        Args:
            error: what ended it.
        """
        mine = place_of(reversed([frame for frame, _ in traceback.walk_tb(error.__traceback__)]))
        said = f"on {self._host}, at step {self.step}, {_in(mine)}"
        if not in_collective(mine):
            return said
        others = {rank: self._last_beat(rank) for rank in range(self._world.world_size)}
        others.pop(self._world.rank)
        absent = [
            f"rank {rank} on {beat[1]} ({_last_seen(beat)})"
            for rank, beat in others.items()
            if beat and (beat[2] != mine or int(beat[-1]) < self.step)
        ]
        if not absent:
            return said
        more = f" and {len(absent) - MOST_NAMED} more" if len(absent) > MOST_NAMED else ""
        return f"{said}; not in it: {', '.join(absent[:MOST_NAMED])}{more}"

    def _last_beat(self, rank: int) -> list[str]:
        """A rank's last beat: count, host, place, step; [] where there is none."""
        try:
            return self._file(rank).read_text(encoding="utf-8").split()
        except OSError:
            return []


def place_of(frames: Iterable[FrameType]) -> str:
    """Where a thread is, as one word: "all_reduce:signals.agree" in a collective, else "optimizer.update".

    Args:
        frames: of its stack, the innermost first.
    """
    collective, caller = "", ""
    for frame in frames:
        path, name = frame.f_code.co_filename, frame.f_code.co_name
        if path.endswith(COLLECTIVES):
            collective = name
        elif LIBRARY not in path:
            caller = f"{Path(path).stem}.{name}"
            break
    return "".join((f"{collective}:{caller}" if collective else caller or "unknown").split())


def in_collective(place: str) -> bool:
    """Whether a place is inside of a collective."""
    return ":" in place


def _in(place: str) -> str:
    collective, _, caller = place.rpartition(":")
    return f"in {collective}, called by {caller}" if collective else f"in {caller}"


def _last_seen(beat: list[str]) -> str:
    return f"last at step {beat[-1]}, {_in(beat[2])}"


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of a living thread, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back
