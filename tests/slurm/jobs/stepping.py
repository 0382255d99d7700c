"""A job that behaves as training does towards Slurm, without torch; imported by its ranks.

Steps take a moment, checkpoints are text, the "loss" of a step depends on the step before it, signals set a
flag that is seen at the step boundary. Agreement between ranks is the real engine's, with tests of its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from conf.schema.cluster import ClusterConfig
from conf.schema.run import Command, RunConfig
from data_prep import files
from elm_megatron.run.folder import Rows, RunFolder
from elm_megatron.run.requests import Requests
from elm_megatron.run.world import Outcome, World


@dataclass
class Stepping:
    """`steps` steps of `seconds` each; `trouble` names what goes wrong."""

    run: str
    steps: int
    seconds: float = 0.1
    save_every: int = 10
    trouble: str = ""

    def __call__(self, world: World) -> Outcome:
        if self.trouble == "abort" and world.restart == 0:
            self._abort_when_asked()
        stop_requested: list[int] = []
        for signum in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(signum, lambda number, frame: stop_requested.append(number))
        self._ready(world, world.rank).touch()
        run = RunFolder(self.run, [world.job_id, world.restart])
        if self.trouble == f"raise on {world.rank}":
            raise ZeroDivisionError("on purpose")
        if self.trouble == "show prefix":
            (run.path / f"prefix-{world.rank}").write_text(sys.prefix)
        if self.trouble == "no progress":
            return "requeue"
        if self.trouble == "meet":
            self._meet(world)
        step, value = self._restore(run)
        if world.rank == 0:
            run.cut_after(step)
            rows, requests = Rows(run.metrics), Requests(run)
        everyone = [self._ready(world, rank) for rank in range(world.world_size)]
        while not all(path.exists() for path in everyone) and not stop_requested:
            time.sleep(0.05)
        while step < self.steps and not stop_requested:
            time.sleep(self.seconds)
            step, value = step + 1, (value * 31 + step) % 1009
            if world.rank == 0:
                rows.append({"step": step, "loss": value, "restart": world.restart})
                asked = requests.look()
                if step % self.save_every == 0 or "save" in asked:
                    self._save(run, step, value)
                if "stop" in asked:
                    stop_requested.append(signal.SIGTERM)
        if world.rank == 0:
            self._save(run, step, value)
        if step == self.steps:
            return "done"
        return "requeue" if stop_requested[0] == signal.SIGUSR2 else "cancelled"

    def _abort_when_asked(self) -> None:
        """As a rank of MPI does: what interrupts it takes the world down, and the status is no success."""
        try:
            time.sleep(600)
        except BaseException:
            os._exit(1)

    def _ready(self, world: World, rank: int) -> Path:
        """Made by a rank once its handlers stand; before that, what asks the job to save would kill the rank.

        The folder belongs to one attempt: the file of an earlier attempt does not count.
        """
        return world.rendezvous / f"ready-{rank}"

    def _restore(self, run: RunFolder) -> tuple[int, int]:
        step = run.latest_step()
        return (0, 1) if step is None else (step, json.loads((run.checkpoints / f"{step}.json").read_text()))

    def _save(self, run: RunFolder, step: int, value: int) -> None:
        folder = run.checkpoints / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / "manifest.json", "{}")
        files.write(run.checkpoints / f"{step}.json", json.dumps(value))
        files.write(run.latest, f"step-{step:08d}")
        run.update(step=step)

    def _meet(self, world: World) -> None:
        """Rank 0 listens on a port the kernel gives it and publishes it; the others greet it there."""
        path = world.rendezvous / "port"
        if world.rank == 0:
            with socket.create_server((socket.gethostbyname(world.hostname), 0)) as server:
                files.write(path, str(server.getsockname()[1]))
                for _ in range(world.world_size - 1):
                    with server.accept()[0] as peer:
                        assert peer.recv(99) == self.run.encode()
            return
        while not path.exists():
            time.sleep(0.05)
        with socket.create_connection((world.hostname, int(path.read_text()))) as peer:
            peer.sendall(self.run.encode())


@dataclass
class Config(Command):
    """What `submit` reads of a config."""

    run: RunConfig
    cluster: ClusterConfig = field(default_factory=ClusterConfig)


if __name__ == "__main__":  # stepping.py folder ranks steps seconds trouble key=value …: submits itself
    from stepping import Config as ImportedConfig
    from stepping import Stepping as ImportedStepping

    from conf.process import guarded
    from slurm.jobs.submit import submit

    folder, ranks, steps, seconds, trouble, *keys = sys.argv[1:]
    settings: dict[str, object] = {}
    for key, value in (pair.split("=", 1) for pair in keys):
        number = value.isdigit() and key != "time"
        settings[key] = int(value) if number else None if value == "null" else value
    if "setup" in settings:
        settings["setup"] = [settings["setup"]]
    group = settings.pop("group", None)
    cluster = ClusterConfig(
        **{"name": "dev", "executor": "slurm", "partition": "low", "time": "5", "signal_seconds": 20}
        | {"slurm_conf": os.environ["SLURM_CONF"], "env": {"PYTHONPATH": str(Path(__file__).parent)}}
        | settings
    )
    cluster.check()
    job = ImportedStepping(folder, int(steps), float(seconds), trouble=trouble)
    config = ImportedConfig(RunConfig(Path(folder).name, folder, group), cluster)
    sys.exit(guarded(lambda: submit(job, config, int(ranks), "pretrain")))
