"""Real ranks for tests: processes that import torch and megatron-core once and then run case after case.

Each case forms its own world over gloo and leaves it, so that a whole matrix of layouts costs one start.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from elm_megatron.run.world import World

CASE_SECONDS = 240
MANY_THREADS = 150  # three cases or so
_numbers = itertools.count()


def _serve(pipe: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    while (task := pipe.recv()) is not None:
        function, world, arguments = task
        try:
            pipe.send((True, function(world, **arguments)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
            from elm_megatron.engine import distributed

            distributed.leave()  # the other ranks' waits end, and the next case finds no world
        if _threads() > MANY_THREADS:
            _collect()


def _collect() -> None:
    """Free the process groups of cases that are over; they hang in cycles, with gloo's threads."""
    for thing in gc.get_objects():
        if type(thing).__name__ == "DistributedDataParallel":
            # Autograd's nodes hold their hooks, and these the model, where the collector does not see it.
            vars(thing).clear()
    gc.collect()


def _threads() -> int:
    """Threads of this process; 0 where the system does not tell."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return 0


class RankPool:
    """A few rank processes, kept warm.

    Args:
        size: how many; a case may use fewer.
        folder: for rendezvous files.
    """

    def __init__(self, size: int, folder: Path):
        self._folder = folder
        context = multiprocessing.get_context("spawn")
        os.environ["OMP_NUM_THREADS"] = "1"
        self._pipes, self._processes = [], []
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def world(self, ranks: int, rank: int, case: int) -> World:
        """One rank's place in a case's world."""
        return World(rank, ranks, rank, 0, 1, f"case{case}", 0, "127.0.0.1", self._folder)

    def run(self, ranks: int, function: Callable[..., Any], **arguments: Any) -> list[Any]:
        """Call `function(world, **arguments)` on `ranks` ranks; their results in rank order.

        Raises:
            RuntimeError: with the traceback of the first rank that failed.
        """
        case = next(_numbers)
        for rank in range(ranks):
            self._pipes[rank].send((function, self.world(ranks, rank, case), arguments))
        results = []
        for rank in range(ranks):
            if not self._pipes[rank].poll(CASE_SECONDS):
                raise RuntimeError(f"rank {rank} of {ranks} did not answer within {CASE_SECONDS} s")
            results.append(self._pipes[rank].recv())
        for rank, (good, value) in enumerate(results):
            if not good:
                raise RuntimeError(f"rank {rank} of {ranks} failed:\n{value}")
        return [value for _, value in results]

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()
