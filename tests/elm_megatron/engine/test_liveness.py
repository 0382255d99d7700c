"""A rank that falls silent is named by the one that listens to it, and the job ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from elm_megatron.engine.liveness import Heartbeat, _stack, in_collective, place_of
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.world import World
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool

LAUNCHER = Path(__file__).resolve().parents[3] / "launch" / "pretrain.py"


@pytest.mark.parametrize("silent", [0, 1])
def test_silent_rank_is_named(silent: int, ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    config = pretrain_config(tmp_path / "run", small_data, 2, stall_seconds=1.0)
    said = ranks.run(2, rank_functions.train_and_stop_beating, config=config, silent=silent)
    assert said[1 - silent].startswith(f"{silent} ")
    assert said[1 - silent].endswith(" 7\n")
    assert said[silent] == ""


def test_a_collective_that_fails_names_who_did_not_come(
    ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    config = pretrain_config(tmp_path / "run", small_data, 2, stall_seconds=30.0)
    rank_functions.folder(config)
    said = ranks.run(2, rank_functions.train_with_an_absent_rank, config=config, absent=1)
    host = socket.gethostname().split(".")[0]
    assert said[0].startswith(f"on {host}, at step 2, in ")
    assert ", called by " in said[0]
    assert f"not in it: rank 1 on {host} (last at step 2, in rank_functions.train_step)" in said[0]


def test_a_place_is_a_collective_or_a_function() -> None:
    assert place_of([]) == "unknown"
    frame = sys._getframe()
    assert place_of([frame]) == "test_liveness.test_a_place_is_a_collective_or_a_function"
    code = compile(
        "def all_reduce(call):\n    return call()", "/x/torch/distributed/distributed_c10d.py", "exec"
    )
    names: dict = {}
    exec(code, names)
    place = names["all_reduce"](lambda: place_of(_stack(sys._getframe().f_back)))
    assert place == "all_reduce:test_liveness.test_a_place_is_a_collective_or_a_function"
    assert in_collective(place)


def test_a_straggler_is_named_beside_others_with_the_same_weights(
    ranks: RankPool, small_data: Path, tmp_path: Path
) -> None:
    """They wait for its gradients, which is no work of their own."""
    config = pretrain_config(tmp_path / "run", small_data, 2, steps=3)
    run = rank_functions.folder(config)
    ranks.run(2, rank_functions.train_with_a_straggler, config=config, slow=1)
    rows = run.read_metrics()
    assert [row["slowest_rank"] for row in rows] == [1, 1, 1]
    assert all(row["slowest_over_median"] > 1.5 for row in rows)


def heart(tmp_path: Path, rank: int, said: list[str]) -> Heartbeat:
    """One of two hearts, which tells instead of ending the process."""
    beating = Heartbeat(replace(World.single(tmp_path), world_size=2, rank=rank), stall_seconds=1.0)
    beating._give_up = lambda *silent: said.append(f"{rank}: {silent}")  # type: ignore[method-assign]
    return beating


def test_a_file_system_that_hesitates_ends_nothing(tmp_path: Path) -> None:
    """First one beat cannot be written, then every file stands still for longer than a rank may."""
    said: list[str] = []
    hearts = [heart(tmp_path, rank, said) for rank in (0, 1)]
    hearts[0]._file(0).parent.mkdir(parents=True, exist_ok=True)
    original, failures, frozen = Heartbeat._beat, [OSError(122, "Disk quota exceeded")], threading.Event()
    frozen.set()

    def beat(self: Heartbeat, word: str) -> None:
        if failures:
            raise failures.pop()
        frozen.wait()
        original(self, word)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Heartbeat, "_beat", beat)
        for each in hearts:
            each.start()
        time.sleep(0.6)
        frozen.clear()
        time.sleep(1.6)
        frozen.set()
        time.sleep(0.6)
        assert all(each._thread.is_alive() for each in hearts)
        for each in hearts:
            each.stop()
    assert said == []


def pid_of(rank: int, run: RunFolder) -> int | None:
    """The process of a rank of a run on this machine."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            if "submitit.core._submit" not in words or str(run.logs) not in words:
                continue
            if f"SUBMITIT_LOCAL_GLOBALID={rank}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except OSError:
            continue  # it has just ended
    return None


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_stopped_rank_ends_a_real_run(stopped: int, small_data: Path, tmp_path: Path) -> None:
    """SIGSTOP in the middle of training, as a frozen node looks to the others."""
    run = RunFolder(tmp_path / "run")
    keys = [f"data.dir={small_data}", f"run.dir={run.path}", "parallel.tp=2", "train.stall_seconds=3"]
    keys += ["train.steps=1000000", "train.save_every=1000000", "train.eval_every=1000000"]
    process = subprocess.Popen(
        [sys.executable, str(LAUNCHER), *keys], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    pids: list[int | None] = []
    try:
        while not (run.metrics.exists() and len(run.read_metrics()) > 3):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        pids = [pid_of(rank, run) for rank in (0, 1)]
        assert None not in pids
        os.kill(pids[stopped], signal.SIGSTOP)
        _, errors = process.communicate(timeout=120)
    finally:
        process.terminate()
        for pid in filter(None, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert process.returncode == 1
    host = socket.gethostname().split(".")[0]
    assert f"rank {stopped} on {host} has not been heard of" in errors
    assert f"rank {1 - stopped} on {host} ends the job" in errors
    assert not any(Path(f"/proc/{pid}/environ").exists() for pid in pids)
    assert run.read()["state"] == "failed"
