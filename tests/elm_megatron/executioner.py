"""Exports and imports in processes that die without warning at a chosen point.

A process of its own imports torch and megatron-core once, starts no thread, and forks for each job.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from elm_megatron.hf.job import Export, Import
from elm_megatron.run.world import World

SECONDS = 200


class Executioner:
    """Starts jobs that end at a point.

    Args:
        folder: for rendezvous files.
    """

    def __init__(self, folder: Path):
        os.environ["OMP_NUM_THREADS"] = "1"
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, folder), daemon=True)
        self._process.start()

    def do(self, job: Export | Import, point: str) -> int:
        """Do it; the process ends at `point` ("tensor-7": at the eighth tensor). Returns its status."""
        self._pipe.send((job, point))
        if not self._pipe.poll(SECONDS):
            raise TimeoutError(f"the job to be ended at {point} did not end within {SECONDS} s")
        return self._pipe.recv()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, folder: Path) -> None:
    from elm_megatron.model import device as devices

    devices.prepare("cpu", 0)
    import elm_megatron.hf.export  # noqa: F401 - imported once, for all forks

    while True:
        job, point = pipe.recv()
        child = os.fork()
        if child == 0:
            try:
                _run(job, folder, point)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        pipe.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _run(job: Export | Import, folder: Path, point: str) -> None:
    from elm_megatron.card import card
    from elm_megatron.hf import export as exporting
    from elm_megatron.hf import gate, tokenizer_writer, writer

    points = {
        "tensor": (writer.SafetensorsWriter, "write"),
        "finish": (writer.SafetensorsWriter, "finish"),
        "tokenizer": (tokenizer_writer, "write"),
        "gate": (gate, "compare"),
        "card": (card, "write"),
        "replace": (exporting.files, "replace_folder"),
        "rename": (Path, "rename"),
    }
    name, _, count = point.partition("-")
    owner, attribute = points[name]
    original, left = getattr(owner, attribute), [int(count or 0)]

    def dying(*args: Any, **kwargs: Any) -> Any:
        if left[0] == 0:
            os._exit(9)
        left[0] -= 1
        return original(*args, **kwargs)

    setattr(owner, attribute, dying)
    job(World.single(folder))
