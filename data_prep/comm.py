"""Ranks that work together: MPI when there are several, nothing at all when there is one.

`Comm` is what a build asks of its ranks; `SingleProcess` and `Mpi` are the two kinds. So a build reads the
same for one process, `mpiexec` and `srun`.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np

from conf.errors import InputError

T = TypeVar("T")
LONGEST_PAUSE = 0.005  # seconds between two looks whether the others have arrived


class Comm(Protocol):
    """The ranks of a build.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
    """

    rank: int
    size: int

    def bcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""

    def gather(self, value: T) -> list[T] | None:
        """Every rank's value in rank order, on rank 0; None elsewhere."""

    def exchange(self, values: np.ndarray) -> Callable[[], np.ndarray]:
        """Send an int64 vector to every rank, without waiting for theirs.

        Returns:
            A function that waits for them: int64 of shape (ranks, len(values)), in rank order.
        """

    def agree(self, error: str | None) -> None:
        """Raise the first rank's error on every rank, so that all leave a stage together.

        Raises:
            InputError: when any rank gave an error.
        """

    def abort(self) -> None:
        """End every rank after an unexpected error; a single process just returns."""


class SingleProcess(Comm):
    """A world of one process; never imports MPI."""

    rank = 0
    size = 1

    def bcast(self, value: T) -> T:
        return value

    def gather(self, value: T) -> list[T] | None:
        return [value]

    def exchange(self, values: np.ndarray) -> Callable[[], np.ndarray]:
        return lambda: values[None]

    def agree(self, error: str | None) -> None:
        if error is not None:
            raise InputError(error)

    def abort(self) -> None:
        pass


def on_first(comm: Comm, function: Callable[[], T]) -> T:
    """Rank 0's result of a function on every rank, or its InputError on every rank."""
    value = error = None
    if comm.rank == 0:
        try:
            value = function()
        except InputError as found:
            error = str(found)
    comm.agree(error)
    return comm.bcast(value)


class Mpi(Comm):
    """The ranks of ``COMM_WORLD``."""

    def __init__(self, ranks: int) -> None:
        """Join the world.

        Args:
            ranks: the number of ranks that must be there.

        Raises:
            InputError: mpi4py is missing or cannot find an MPI library.
            RuntimeError: the world has another size, as when every rank started a world of its own.
        """
        # MPICH names the memory that ranks of a node share after the Slurm job and step, and would count the
        # dead ranks in what a killed step left there: a requeued job never started. A few numbers need none.
        os.environ.setdefault("MPIR_CVAR_NOLOCAL", "1")
        if "SLURM_STEP_ID" in os.environ:
            # Slurm's PMI now and then cuts a long message in two and refuses both halves. The addresses that
            # MPICH's ranks tell each other are long with UCX, and short with libfabric.
            os.environ.setdefault("MPIR_CVAR_CH4_NETMOD", "ofi")
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise InputError(
                f"preprocess.ranks={ranks} needs MPI: pip install mpi4py mpich, or set it to 1."
            ) from error
        self._comm = MPI.COMM_WORLD
        self.rank, self.size = self._comm.rank, self._comm.size
        if self.size != ranks:
            raise RuntimeError(
                f"expected {ranks} MPI ranks but this world has {self.size}: the launcher and the MPI "
                "library do not know each other (on Slurm, see cluster.mpi and `srun --mpi=list`)"
            )

    def _meet(self) -> None:
        """Wait for the others."""
        self._asleep(self._comm.Ibarrier())

    @staticmethod
    def _asleep(request: Any) -> None:
        """Wait asleep: MPI itself waits by spinning, for hours while rank 0 works alone."""
        pause = 1e-4
        while not request.Test():
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def bcast(self, value: Any) -> Any:
        self._meet()
        return self._comm.bcast(value)

    def gather(self, value: Any) -> list[Any] | None:
        self._meet()
        return self._comm.gather(value)

    def exchange(self, values: np.ndarray) -> Callable[[], np.ndarray]:
        every = np.empty((self.size, len(values)), np.int64)
        request = self._comm.Iallgather(values, every)

        def wait() -> np.ndarray:
            self._asleep(request)
            return every

        return wait

    def agree(self, error: str | None) -> None:
        self._meet()
        for found in self._comm.allgather(error):
            if found is not None:
                raise InputError(found)

    def abort(self) -> None:
        traceback.print_exc()
        sys.stderr.flush()
        self._comm.Abort(1)


def world(ranks: int) -> Comm:
    """The communicator for a number of ranks."""
    return SingleProcess() if ranks == 1 else Mpi(ranks)
