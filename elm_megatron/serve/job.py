"""Serving as a job: engines, the gateway before them, and the end: idle, told to stop, or handed over.

On Slurm USR2 comes before the time limit. A successor is handed in then, and this job serves on until the
successor answers. Whoever asks through `elm_megatron/serve/connect.py` notices nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from conf.schema.serve import ServeConfig
from elm_megatron.run.world import Outcome, World
from elm_megatron.serve.engines import Served

Successor = Callable[[World, Path], str]


@dataclass(frozen=True)
class Serve:
    """Serves the models of `config`, as the only rank of its world.

    Attributes:
        config: the checked configuration.
        models: what its engines read.
        successor: hands in the job that goes on after this one's time limit; None where there is none.
    """

    config: ServeConfig
    models: tuple[Served, ...]
    successor: Successor | None = None
    overlaps: ClassVar[bool] = True  # its successor begins while it still runs

    def progress(self) -> int:
        """A number that changes: a server that starts again is not stuck, it has no checkpoints."""
        return int(time.time() * 1000)

    def __call__(self, world: World) -> Outcome:
        """Serve until it is idle, told to stop, or handed over.

        Raises:
            InputError: the port cannot be had.
            Failed: an engine ended.
        """
        from elm_megatron.serve.server import Server

        return Server(self, world).run()
