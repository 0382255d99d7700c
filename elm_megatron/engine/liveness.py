"""Is every rank alive? Each rank beats in a file of its own and listens to the next one.

A stopped or frozen process cannot say so, and rank 0's store dies with rank 0; so the ranks stand in a ring
and each watches its successor. Whoever hears nothing for the set time names the silent rank and ends its own
process; the launcher (or srun) then ends the whole world, the silent rank by SIGKILL.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from elm_megatron.run.world import World

EXIT_STALLED = 75


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
        temporary.write_text(f"{word} {self.step}\n", encoding="utf-8")
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
        step = last.split()[-1] if last else "its start"
        print(
            f"rank {rank} has not been heard of for {seconds:.0f} s (last at step {step}); "
            f"rank {self._world.rank} ends the job",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_STALLED)
