"""How ranks find rank 0: it publishes its addresses in the run folder, and the others try each of them.

A node's own name need not be known on other nodes, so that one address is a guess. All are tried at once,
since a name that cannot be resolved may take minutes to say so. Torch-free.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from data_prep import files

REACH_SECONDS = 60.0
PUBLISH_SECONDS = 600.0
LATE_SECONDS = 1.0  # in which a thread tells what its address said


class Unreachable(RuntimeError):
    """No address of rank 0 answers; the text says what each of them said."""


def publish(path: Path, addresses: Sequence[str], port: int) -> None:
    """Write the addresses of rank 0, the best one first, as lines `address:port`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, "".join(f"{address}:{port}\n" for address in dict.fromkeys(addresses)))


def reach(path: Path, seconds: float = REACH_SECONDS, wait: float = PUBLISH_SECONDS) -> tuple[str, int]:
    """The first address of rank 0 that answers, and its port.

    Args:
        path: what rank 0 publishes.
        seconds: in which one address has to answer.
        wait: seconds in which rank 0 has to publish.

    Raises:
        TimeoutError: rank 0 published nothing.
        Unreachable: no address answers.
    """
    until = time.monotonic() + wait
    while not path.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"rank 0 did not publish {path} within {wait:.0f} s")
        time.sleep(0.05)
    places = [line.rpartition(":") for line in path.read_text(encoding="utf-8").split()]
    until = time.monotonic() + seconds
    said: dict[str, str] = {}
    answers: queue.Queue[tuple[str, str | None]] = queue.Queue()
    for address, _, port in places:
        threading.Thread(target=_try, args=(address, int(port), until, answers), daemon=True).start()
    while len(said) < len(places) and (left := until + LATE_SECONDS - time.monotonic()) > 0:
        try:
            address, problem = answers.get(timeout=left)
        except queue.Empty:
            break
        if problem is None:
            return address, int(next(port for name, _, port in places if name == address))
        said[address] = problem
    reasons = ", ".join(f"{name} ({said.get(name, 'no answer')})" for name, _, _ in places)
    raise Unreachable(
        f"{socket.gethostname()} reaches rank 0 at none of its addresses within {seconds:.0f} s: {reasons}; "
        "set cluster.interface to the network that the nodes share."
    )


def _try(address: str, port: int, until: float, answers: queue.Queue[tuple[str, str | None]]) -> None:
    """Connect until it works; a refusal may come from a server that is only just starting."""
    problem = "no answer"
    while (left := until - time.monotonic()) > 0:
        try:
            with socket.create_connection((address, port), timeout=left):
                answers.put((address, None))
                return
        except socket.gaierror as error:
            problem = error.strerror or str(error)
            break
        except OSError as error:
            problem = error.strerror or str(error)
        time.sleep(min(1.0, max(0.0, until - time.monotonic())))
    answers.put((address, problem))
