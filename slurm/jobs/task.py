"""What one rank does around its job, here and on Slurm. Holds no torch and no submitit.

    world → signals → job(world) → outcome → (on Slurm) what the batch script must do

Until a job installs its own handlers, SIGTERM and USR2 end it by an exception: SIGTERM means stop for good,
USR2 means save and start again. A job that may not be interrupted at every point, as training, replaces the
handlers. The handler itself makes the marker file for the batch script: a rank of an MPI world may be aborted
right after it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from conf.errors import InputError
from elm_megatron.run.world import Outcome, World

REQUEUE, HOLD, STOPPED = "requeue", "hold", "stopped"  # marker files for the batch script, at the rendezvous
SIOCGIFADDR = 0x8915  # linux/sockios.h
ORPHAN_POLL_SECONDS = 1.0
ORPHAN_GRACE_SECONDS = 60.0
STUCK_SECONDS = 10.0


class Stop(BaseException):
    """Raised by a signal inside a job that has no handlers of its own; holds the outcome."""

    def __init__(self, outcome: Outcome):
        super().__init__(outcome)
        self.outcome = outcome


def run(
    job: Callable[[World], Outcome], world: World, launcher: int | None = None, umask: int = 0o077
) -> Outcome:
    """Run a job as one rank of a world.

    Args:
        job: the job; its result says how it ended.
        world: this rank's place.
        launcher: pid of the local launcher; when it is gone the rank ends itself. None on Slurm.
        umask: of what the job writes.

    Raises:
        Exception: whatever the job raised, after its traceback was printed with the rank's name.
    """
    os.umask(umask)
    if launcher is not None:
        threading.Thread(target=follow, args=(launcher,), daemon=True).start()
    world.rendezvous.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _stop("cancelled", world.rendezvous / STOPPED))
    signal.signal(signal.SIGUSR2, _stop("requeue", world.rendezvous / REQUEUE))
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    if launcher is not None:
        _end_when_stuck()
    try:
        return job(world)
    except Stop as stop:
        print(f"rank {world.rank}: stopped by a signal, outcome {stop.outcome}.", flush=True)
        return stop.outcome
    except InputError as error:
        print(f"rank {world.rank}: {error}", file=sys.stderr, flush=True)
        raise
    except Exception:
        trace = traceback.format_exc()
        print(
            f"rank {world.rank} of {world.world_size} on {socket.gethostname()} failed:\n{trace}", flush=True
        )
        raise


def _stop(outcome: Outcome, marker: Path) -> Callable[[int, FrameType | None], None]:
    def handler(signum: int, frame: FrameType | None) -> None:
        marker.touch()
        raise Stop(outcome)

    return handler


def _end_when_stuck() -> None:
    """End this rank soon after SIGTERM if it cannot even handle the signal, and has nothing to save.

    Python runs a signal's handler between two of its own steps. A rank that waits for the others inside a
    library, because one of them cannot be reached, never comes to that. A thread sees the kernel's byte on a
    pipe all the same. Once a job has handlers of its own it may be saving, and is left alone.
    """
    ours, kernels = os.pipe()
    os.set_blocking(kernels, False)
    signal.set_wakeup_fd(kernels, warn_on_full_buffer=False)
    before = signal.getsignal(signal.SIGTERM)

    def wait() -> None:
        while signal.SIGTERM not in os.read(ours, 64):
            pass
        time.sleep(STUCK_SECONDS)
        if signal.getsignal(signal.SIGTERM) == before:
            os._exit(128 + signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def follow(launcher: int) -> None:
    """End this rank when its launcher is gone: first as by Ctrl-C, and for good if that does not help."""
    while os.getppid() == launcher:
        time.sleep(ORPHAN_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)  # the rank leads its own group: its helpers end with it


def refusal(logs: Path, job_id: str) -> Path:
    """The file in which a rank leaves the sentence with which its job refused the input."""
    return logs / f"{job_id}_refused.txt"


def refuse(path: Path, error: InputError) -> None:
    """Leave the sentence of a refusal; of several ranks that refuse, the first one's."""
    with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
        file.write(str(error))


def local_world(run_folder: Path, rank: int, ranks: int, job_id: str) -> World:
    """The world of a rank on this machine."""
    return World(
        rank=rank,
        world_size=ranks,
        local_rank=rank,
        node_rank=0,
        nodes=1,
        job_id=job_id,
        restart=0,
        hostname="127.0.0.1",
        rendezvous=rendezvous(run_folder, job_id, 0),
    )


def rendezvous(run_folder: Path, job_id: str, restart: int) -> Path:
    """Folder of one start of one job, so that no rank ever meets the address of an earlier start."""
    return run_folder / "rendezvous" / f"{job_id}-{restart}"


def slurm_world(
    run_folder: Path, rank: int, ranks: int, nodes: int, job_id: str, interface: str | None
) -> World:
    """The world of a rank that srun started.

    `restart` tells the attempts of one job id apart: it is Slurm's restart count, and in an existing
    allocation the number of the step.
    """
    env = os.environ
    step = "SLURM_STEP_ID" if env.get("ELM_ALLOCATION") else "SLURM_RESTART_COUNT"
    restart = int(env.get(step) or 0)
    return World(
        rank=rank,
        world_size=ranks,
        local_rank=int(env.get("SLURM_LOCALID", 0)),
        node_rank=int(env.get("SLURM_NODEID", 0)),
        nodes=nodes,
        job_id=job_id,
        restart=restart,
        hostname=address_of(interface) if interface else socket.gethostname(),
        rendezvous=rendezvous(run_folder, job_id, restart),
        addresses=() if interface or rank else tuple(other_addresses()),
    )


def other_addresses() -> list[str]:
    """Addresses of this node beside its name: Slurm's word for it, then those of its interfaces.

    Those that other nodes may have too are left out: the loopback's, and those of bridges for containers.
    """
    found = []
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # a container holds no scontrol
        name = os.environ.get("SLURMD_NODENAME", "")
        command = ["scontrol", "-o", "show", "node", name]
        shown = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True
        ).stdout
        found += re.findall(r" NodeAddr=(\S+)", shown)
    for _, interface in socket.if_nameindex():
        if interface.startswith(("lo", "docker", "virbr", "veth", "br-")):
            continue
        with contextlib.suppress(InputError):
            found.append(address_of(interface))
    return list(dict.fromkeys(found))


def address_of(interface: str) -> str:
    """IPv4 address of a network interface of this node.

    Raises:
        InputError: the node has no such interface; the sentence names those it has.
    """
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
        except OSError as error:
            names = ", ".join(name for _, name in socket.if_nameindex())
            raise InputError(
                f"cluster.interface={interface}: no address on {socket.gethostname()}; it has {names}."
            ) from error
    return socket.inet_ntoa(answer[20:24])
