"""Local worlds end when they should, as they should, and leave nothing running. The jobs hold no torch."""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def launch(behaviour: str, folder: Path, ranks: int = 2, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "fake_jobs.py"), behaviour, str(folder), str(ranks)],
        env={**os.environ, "PYTHONPATH": str(HERE), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = 20) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def wait_for(condition: Callable[[], object], seconds: float = 15) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def wait_until_said(process: subprocess.Popen[str], words: str) -> None:
    """Read standard error until the words are there; what was read is not in `finish`'s answer."""
    said = bytearray()

    def heard() -> bool:
        assert process.stderr is not None
        if select.select([process.stderr], [], [], 0)[0]:
            said.extend(os.read(process.stderr.fileno(), 1 << 16))
        return words.encode() in said

    wait_for(heard)


def pids(folder: Path, kind: str = "pid") -> list[int]:
    return [int(path.read_text()) for path in folder.glob(f"{kind}-*") if path.read_text()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def started(folder: Path, ranks: int = 2, kind: str = "pid") -> list[int]:
    wait_for(lambda: len(pids(folder, kind)) == ranks)
    return pids(folder, kind)


def test_success_shows_rank_0_and_keeps_the_others_in_their_logs(tmp_path: Path) -> None:
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    env = {"PMI_RANK": "3", "SLURM_JOB_ID": "7", "SLURM_PROCID": "1"}
    clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    os.environ.pop("OMP_NUM_THREADS", None)
    try:
        status, out, err = finish(launch("succeed", tmp_path / "run", **env))
    finally:
        os.environ.update(clean)
    assert (status, err) == (0, "")
    assert out == f"hello from 0 of 2\n{threads} ''\nset()\n"
    assert "hello from 1 of 2" in next((tmp_path / "run/logs").glob("*_1_log.out")).read_text()
    for path in (tmp_path / "run").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"{path} is readable by others"


def test_a_rank_that_raises_ends_the_world_with_its_traceback(tmp_path: Path) -> None:
    process = launch("raise_on_1", tmp_path / "run")
    # Rank 1 raises as soon as it has started; rank 0 sleeps 600 s, or may be ended before it has come so far.
    wait_for((tmp_path / "run" / "pid-1").exists, 60)
    begin = time.monotonic()
    status, _, err = finish(process)
    assert status == 1 and time.monotonic() - begin < 10
    assert "rank 1 of 2 failed" in err and "ZeroDivisionError: on purpose" in err
    assert not any(alive(pid) for pid in pids(tmp_path / "run"))


def test_a_killed_rank_ends_the_world(tmp_path: Path) -> None:
    process = launch("save_on_term", tmp_path / "run")
    ranks = started(tmp_path / "run")
    os.kill(ranks[1], signal.SIGKILL)
    begin = time.monotonic()
    status, _, err = finish(process)
    assert status == 1 and time.monotonic() - begin < 10
    assert "was killed by SIGKILL" in err
    assert not any(alive(pid) for pid in ranks)


def test_survivors_that_ignore_sigterm_are_killed(tmp_path: Path) -> None:
    status, _, err = finish(launch("deaf", tmp_path / "run"))
    assert status == 1 and "rank 1 of 2 was killed by SIGKILL" in err
    assert not any(alive(pid) for pid in pids(tmp_path / "run"))


def test_a_stopped_rank_does_not_outlive_a_dead_one(tmp_path: Path) -> None:
    process = launch("save_on_term", tmp_path / "run")
    ranks = started(tmp_path / "run")
    os.kill(ranks[0], signal.SIGSTOP)
    os.kill(ranks[1], signal.SIGKILL)
    assert finish(process)[0] == 1
    assert not any(alive(pid) for pid in ranks)


def test_refused_input_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    status, _, err = finish(launch("refuse", tmp_path / "runs" / "run"))
    assert (status, err) == (2, "data.dir=nowhere: there is no dataset.\n")
    assert list(tmp_path.glob("run*")) == []


def test_ctrl_c_saves_first_and_never_reaches_the_ranks(tmp_path: Path) -> None:
    process = launch("save_on_term", tmp_path / "run")
    ranks = started(tmp_path / "run")
    wait_for(lambda: "ready" in next((tmp_path / "run/logs").glob("*_0_log.out")).read_text())
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    status, out, err = finish(process)
    assert status == 130 and "Ctrl-C again" in err
    assert "saved by 0" in out and "SIGINT" not in out
    assert not any(alive(pid) for pid in ranks)


def test_a_save_that_fails_after_ctrl_c_is_told(tmp_path: Path) -> None:
    process = launch("fail_to_save", tmp_path / "run")
    ranks = started(tmp_path / "run")
    for rank in (0, 1):
        wait_for(lambda r=rank: "ready" in next((tmp_path / "run/logs").glob(f"*_{r}_log.out")).read_text())
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 1 and "rank 1 of 2 failed" in err and "No space left on device" in err
    assert json.loads((tmp_path / "run/run.json").read_text())["state"] == "failed"
    assert not any(alive(pid) for pid in ranks)


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    process = launch("deaf_to_term", tmp_path / "run")
    ranks = started(tmp_path / "run")
    process.send_signal(signal.SIGINT)
    wait_until_said(process, "Ctrl-C again")  # two signals at once would be one
    process.send_signal(signal.SIGINT)
    assert finish(process, 5)[0] == 130
    assert not any(alive(pid) for pid in ranks)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_closed_terminal_saves_too(tmp_path: Path, name: str) -> None:
    process = launch("save_on_term", tmp_path / "run")
    ranks = started(tmp_path / "run")
    wait_for(lambda: "ready" in next((tmp_path / "run/logs").glob("*_0_log.out")).read_text())
    process.send_signal(signal.Signals[name])
    status, out, _ = finish(process)
    assert status == 128 + signal.Signals[name] and "saved by 0" in out
    assert not any(alive(pid) for pid in ranks)


def test_ranks_do_not_outlive_a_killed_launcher(tmp_path: Path) -> None:
    process = launch("save_on_term", tmp_path / "run")
    ranks = started(tmp_path / "run")
    wait_for(lambda: "ready" in next((tmp_path / "run/logs").glob("*_0_log.out")).read_text())
    process.kill()
    process.wait()
    wait_for(lambda: not any(alive(pid) for pid in ranks))
    assert "saved by 1" in next((tmp_path / "run/logs").glob("*_1_log.out")).read_text()


def test_what_a_rank_started_ends_with_it(tmp_path: Path) -> None:
    process = launch("sleep_with_child", tmp_path / "run")
    ranks = started(tmp_path / "run")
    children = started(tmp_path / "run", kind="child")
    os.kill(ranks[0], signal.SIGKILL)
    assert finish(process)[0] == 1
    assert not any(alive(pid) for pid in children)


@pytest.mark.parametrize(
    "name", ["a;b", "a$(touch canary)", "a`touch canary`", "a\nb", "a%j", "'a'", "#a", "-a"]
)
def test_folder_names_that_a_shell_would_act_upon_are_refused(tmp_path: Path, name: str) -> None:
    status, _, err = finish(launch("succeed", tmp_path / name))
    assert status == 2 and err.startswith("run.dir=") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_live_run_is_not_started_twice(tmp_path: Path) -> None:
    first = launch("save_on_term", tmp_path / "run")
    started(tmp_path / "run")
    status, out, _ = finish(launch("save_on_term", tmp_path / "run"))
    assert status == 0 and f"process {first.pid} on" in out
    first.send_signal(signal.SIGINT)
    assert finish(first)[0] == 130


def test_run_json_tells_how_a_local_run_ended(tmp_path: Path) -> None:
    status, _, _ = finish(launch("raise_on_1", tmp_path / "run"))
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert status == 1 and record["state"] == "failed" and "exit status 1" in record["reason"]
    assert record["executor"] == "local" and len(record["job_ids"]) == 1
    assert record["versions"]["submitit"] and len(record["git_commit"]) >= 7
    assert "name: run" in (tmp_path / "run/config.yaml").read_text()
