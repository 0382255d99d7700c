"""Jobs without torch that do what a test asks; imported by the ranks of tests/slurm/jobs/test_local.py."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from conf.schema.run import Command, RunConfig
from elm_megatron.run.world import Outcome, World


@dataclass
class FakeConfig(Command):
    """What `submit` reads of a config."""

    run: RunConfig
    cluster: ClusterConfig = field(default_factory=ClusterConfig)


@dataclass
class Fake:
    """One behaviour, by name."""

    behaviour: str

    def __call__(self, world: World) -> Outcome:
        print(f"hello from {world.rank} of {world.world_size}", flush=True)
        if self.behaviour != "refuse":
            (world.rendezvous.parents[1] / f"pid-{world.rank}").write_text(str(os.getpid()))
        return getattr(self, self.behaviour)(world)

    def succeed(self, world: World) -> Outcome:
        print(os.environ["OMP_NUM_THREADS"], repr(os.environ.get("CUDA_VISIBLE_DEVICES")), flush=True)
        print({name for name in os.environ if name.startswith(("SLURM_", "PMI"))}, flush=True)
        return "done"

    def raise_on_1(self, world: World) -> Outcome:
        if world.rank == 1:
            raise ZeroDivisionError("on purpose")
        time.sleep(600)
        return "done"

    def refuse(self, world: World) -> Outcome:
        raise InputError("data.dir=nowhere: there is no dataset.")

    def sleep(self, world: World) -> Outcome:
        time.sleep(600)
        return "done"

    def sleep_with_child(self, world: World) -> Outcome:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (world.rendezvous.parents[1] / f"child-{world.rank}").write_text(str(child.pid))
        time.sleep(600)
        return "done"

    def save_on_term(self, world: World) -> Outcome:
        """As training: a flag is set, the loop sees it at the next step and saves."""
        stop: list[int] = []
        signal.signal(signal.SIGTERM, lambda signum, frame: stop.append(signum))
        signal.signal(signal.SIGINT, lambda signum, frame: print("SIGINT came through", flush=True))
        print("ready", flush=True)
        while not stop:
            time.sleep(0.05)
        time.sleep(0.5)
        print(f"saved by {world.rank}", flush=True)
        return "cancelled"

    def talk_until_term(self, world: World) -> Outcome:
        """As `save_on_term`, with a line of output at every step."""
        stop: list[int] = []
        signal.signal(signal.SIGTERM, lambda signum, frame: stop.append(signum))
        print("ready", flush=True)
        step = 0
        while not stop and step < 100:
            step += 1
            print(f"step {step} of {world.rank}", flush=True)
            time.sleep(0.05)
        (world.rendezvous.parents[1] / f"saved-{world.rank}").write_text(str(step))
        return "cancelled" if stop else "done"

    def hang(self, world: World) -> Outcome:
        """Waits in a library that hands no signal to Python, as for a host that is gone."""
        print("ready", flush=True)
        lock = ctypes.create_string_buffer(64)
        ctypes.CDLL(None).pthread_mutex_lock(lock)
        ctypes.CDLL(None).pthread_mutex_lock(lock)
        return "done"

    def fail_to_save(self, world: World) -> Outcome:
        """Told to stop, rank 1 finds the disk full, and rank 0 waits for its file."""
        stop: list[int] = []
        signal.signal(signal.SIGTERM, lambda signum, frame: stop.append(signum))
        print("ready", flush=True)
        while not stop:
            time.sleep(0.05)
        if world.rank == 1:
            raise OSError(28, "No space left on device")
        time.sleep(600)
        return "cancelled"

    def deaf_to_term(self, world: World) -> Outcome:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
        return "done"

    def deaf(self, world: World) -> Outcome:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
        return "done"


if __name__ == "__main__":
    from fake_jobs import Fake as ImportedFake

    from conf.process import guarded
    from slurm.jobs.submit import submit

    behaviour, folder, ranks = sys.argv[1:]
    config = FakeConfig(RunConfig(Path(folder).name, folder))
    sys.exit(guarded(lambda: submit(ImportedFake(behaviour), config, int(ranks), "fake")))
