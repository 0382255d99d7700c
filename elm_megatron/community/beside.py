"""A model served beside the app, for one machine: `launch/serve.py` as a child of the app's command."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conf.errors import InputError
from conf.names import joined_names
from elm_megatron.serve import status
from elm_megatron.serve.engines import free_port

LAUNCHER = Path(__file__).resolve().parents[2] / "launch" / "serve.py"
STOP_SECONDS = 30.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def server(sources: Sequence[str], runs: Path) -> Iterator[list[dict[str, str]]]:
    """Serve models while the block runs; gives them as `models.yaml` lists them.

    Raises:
        InputError: the server ended before it answered; it has said why.
    """
    name = f"serve-{joined_names(sources)}"
    words = [f"source=[{','.join(sources)}]", f"run.name={name}", f"run.dir={runs / name}"]
    command = [sys.executable, str(LAUNCHER), *words, f"port={free_port()}", "idle_minutes=null"]
    began = time.time()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent)
    try:
        while not _serves(found := status.read(runs / name), began):
            if process.poll() is not None:
                raise InputError(f"source={', '.join(sources)}: no server started, as it has said.")
            time.sleep(0.2)
        url, key = f"http://127.0.0.1:{found['port']}", str((runs / name / status.KEY_FILE).absolute())
        served = zip(found["models"], found["sources"], strict=True)
        yield [{"name": one, "url": url, "key_file": key, "source": source} for one, source in served]
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _end_with_parent() -> None:
    """Have SIGTERM sent to this child when the app is gone, however it ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _serves(found: dict, began: float) -> bool:
    return found.get("state") == "serving" and found.get("updated", 0) >= began
