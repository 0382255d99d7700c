"""Starts a job for every checkpoint that is to be evaluated, outside the ranks that train.

    here      the launcher starts `python -m slurm.jobs.evaluations <run folder> <step>`, one at a time, which
              takes only processor time that nobody else wants; after the last step it waits for the rest
    on Slurm  the batch script hands in <run>/evaluations/job.sh with the step as its argument (hand_in.sh)

What is due is read from the run's folder (elm_megatron/run/evaluations.py), so that the same command after a
kill, or on a finished run, makes what is missing, and repeats nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from conf.errors import EXIT_INPUT, InputError
from conf.schema.cluster import ClusterConfig
from data_prep import files
from elm_megatron.run import evaluations
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.places import run_config
from slurm.jobs import batch, task
from slurm.jobs.environment import exported
from slurm.jobs.executors import Batch, BatchExecutor
from slurm.jobs.local import StopRequest
from slurm.jobs.screen import say, warn

POLL_SECONDS = 1.0
HAND_IN = Path("slurm/jobs/hand_in.sh")  # below the code
SCRIPT = "job.sh"
MODULE = "slurm.jobs.evaluations"
# The GPUs of this machine are the ranks'; a log is no place for progress bars.
OWN = {"CUDA_VISIBLE_DEVICES": "", "TQDM_DISABLE": "1"}


def are_asked(asked: Mapping[str, Any]) -> bool:
    """Whether a configuration, as plain values, asks for the evaluation of every checkpoint."""
    return bool((asked.get("eval") or {}).get("every_checkpoint"))


def keep_settings(run: RunFolder, asked: Mapping[str, Any]) -> None:
    """Put the settings that are asked for now into the config.yaml of a finished run."""
    values = run_config(run) | {"eval": asked["eval"]}
    files.write(run.config, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


# ---- here


@dataclass
class LocalEvaluations:
    """Evaluates the checkpoints of a run on this machine, one at a time.

    Attributes:
        run: its folder.
        env: the environment of the ranks.
        wanted: whether they are asked for; nothing happens otherwise.
        process: the evaluation under way.
        step: its step.
        looked: when the folder was looked at last, on the monotonic clock.
    """

    run: RunFolder
    env: Mapping[str, str]
    wanted: bool = True
    process: subprocess.Popen[bytes] | None = None
    step: int = 0
    looked: float = field(default_factory=time.monotonic)

    def poll(self) -> None:
        """Start the next evaluation where none is under way; called often while ranks train."""
        if not self.wanted or time.monotonic() - self.looked < POLL_SECONDS:
            return
        self.looked = time.monotonic()
        with contextlib.suppress(OSError, InputError):  # a file system that hesitates is asked again
            self._next("--idle", threads=1)

    def finish(self, stop: StopRequest) -> int:
        """After the ranks have ended: evaluate the rest, with all cores.

        Returns:
            0, or 128 + the signal that ended the wait; the same command goes on then.
        """
        said = False
        if self.process is not None:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(self.process.pid, os.SCHED_OTHER, os.sched_param(0))
        while self.wanted and self._next(threads=len(os.sched_getaffinity(0))):
            if not said:
                left = [self.step, *(step for step in evaluations.due(self.run) if step != self.step)]
                say(f"evaluating the checkpoints of steps {', '.join(map(str, left))}")
                said = True
            if stop.signum:
                self.end()
                warn("The run is done, and evaluations are left; the same command again makes them.")
                return 128 + stop.signum
            time.sleep(0.05)
        for step, reason in evaluations.failures(self.run).items() if self.wanted else ():
            warn(f"The checkpoint of step {step} could not be evaluated: {reason}")
        return 0

    def end(self) -> None:
        """Break the evaluation off that is under way."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _next(self, *flags: str, threads: int) -> bool:
        """Take note of an end, and start the next; whether one is under way."""
        if self.process is not None:
            if self.process.poll() is None:
                return True
            self._ended(self.process.returncode)
        waiting = evaluations.due(self.run)
        if not waiting:
            return False
        self.step = waiting[0]
        with self._log().open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(self.run.path), str(self.step), "--beside", *flags],
                env={**self.env, "OMP_NUM_THREADS": str(threads), **OWN, "PYTHONPATH": _path(self.env)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return True

    def _ended(self, status: int) -> None:
        """Keep a process that died without a word from being started again for ever."""
        self.process = None
        known = (evaluations.place(self.run, self.step, kind) for kind in (".json", ".failed"))
        if status and not any(path.exists() for path in known):
            path = evaluations.place(self.run, self.step, evaluations.FAILED)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            files.write(path, f"exit status {status}, see {self._log()}\n")

    def _log(self) -> Path:
        return self.run.logs / f"evaluation_{self.step}.log"


def _path(env: Mapping[str, str]) -> str:
    """PYTHONPATH with this checkout first: `-P` keeps the caller's folder out."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([root, *filter(None, [env.get("PYTHONPATH")])])


# ---- on Slurm


def prepare(
    run: RunFolder, name: str, asked: Mapping[str, Any], cluster: ClusterConfig, python: str, code: Path
) -> None:
    """Write the script of a job that evaluates one checkpoint, for `hand_in.sh`.

    Args:
        run: the run that trains.
        name: its name.
        asked: its configuration as plain values.
        cluster: where it trains.
        python: the command that starts Python on a rank.
        code: the copy of the code that the job runs.
    """
    folder = evaluations.folder(run)
    (folder / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write(folder / SCRIPT, script(folder, name, asked, cluster, python, code), mode=0o700)


def script(
    folder: Path, name: str, asked: Mapping[str, Any], cluster: ClusterConfig, python: str, code: Path
) -> str:
    """The text of that script; its argument is the step."""
    settings = asked["eval"]
    one = cluster.for_one_process() if settings.get("device") != "cpu" else cluster.without_gpus()
    one = replace(
        one,
        device="gpu" if one.gpus_per_node else "cpu",
        dependency=None,
        time=settings.get("time") or one.time,
        mail_user=None,
        mail_type=None,
    )
    one = batch.with_needs(one, "eval", 1)
    parameters = batch.parameters(one, folder, f"{name[:180]}-evaluation", 1, False, python, code)
    parameters["teardown"] = []
    words = [str(folder.parent), '"$1"', "--device", one.device]
    command = f"{python} -u -m {MODULE} {shlex.quote(words[0])} {' '.join(words[1:])}"
    found = Batch(folder / "logs", python, parameters, exported(os.environ), f"cluster={cluster.name}")
    return BatchExecutor(found).text(command)


def hand_in(run: RunFolder, code: Path, slurm_conf: str | None) -> None:
    """Hand in what is due and not in the queue."""
    env = exported(os.environ) | ({"SLURM_CONF": str(Path(slurm_conf).absolute())} if slurm_conf else {})
    command = ["bash", str(code / HAND_IN), str(evaluations.folder(run)), "again"]
    subprocess.run(command, env=env, check=False, timeout=600)


def add_lines(parameters: dict[str, Any], code: Path) -> None:
    """Let the batch script of a run hand in evaluations while its ranks train, and once they have ended.

    Args:
        parameters: of submitit's Slurm executor, as `batch.parameters` gives them.
        code: the copy of the code that the job runs.
    """
    parameters["setup"] += [
        f'evaluate() {{ timeout 60 bash {shlex.quote(str(code / HAND_IN))} "$run/evaluations" "$@"; }}',
        "{ evaluate again; while sleep 5; do evaluate; done; } > /dev/null 2>&1 &",
        "evaluating=$!",
    ]
    status, *rest = parameters["teardown"]
    parameters["teardown"] = [status, "kill $evaluating 2> /dev/null", "evaluate", *rest]


# ---- one evaluation


def main() -> int:
    """Evaluate one checkpoint.

    Returns:
        0 when its result is there, 2 when it cannot be measured.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description="Evaluate one checkpoint.")
    parser.add_argument("run", help="the folder of the run")
    parser.add_argument("step", type=int)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--beside", action="store_true", help="end with the launcher that started this")
    parser.add_argument("--idle", action="store_true", help="use only time that nobody else wants")
    given = parser.parse_args()
    os.umask(0o077)
    if given.idle:
        _give_way()
    if given.beside:
        threading.Thread(target=task.follow, args=(os.getppid(),), daemon=True).start()
    from elm_megatron.evaluate.checkpoints import evaluate_step

    try:
        evaluate_step(RunFolder(given.run), given.step, given.device)
    except InputError as error:
        print(error, file=sys.stderr)
        return EXIT_INPUT
    return 0


def _give_way() -> None:
    """Run only when a core has nothing else to do, until the launcher takes that back."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


if __name__ == "__main__":
    sys.exit(main())
