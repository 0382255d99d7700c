"""A launcher whose screen goes away: its ranks save as for any stop, and nothing is left running."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.slurm.jobs.test_local import HERE, alive, finish, launch, started, wait_for

FAKE = shlex.join([sys.executable, str(HERE / "fake_jobs.py")])


class Terminal:
    """A shell line at a terminal of its own."""

    def __init__(self, line: str):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.environ["PYTHONPATH"] = str(HERE)
            os.execvp("bash", ["bash", "-c", line])

    def press(self, key: bytes) -> None:
        os.write(self.master, key)

    def read(self) -> None:
        """Take what was written, so that nobody waits for room."""
        os.set_blocking(self.master, False)
        try:
            while os.read(self.master, 1 << 16):
                pass
        except OSError:  # nothing more, or closed
            pass

    def close(self) -> None:
        os.close(self.master)

    def wait(self) -> int:
        for _ in range(400):
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            self.read()
            time.sleep(0.05)
        raise AssertionError("the shell line did not end")


def ranks_talk(folder: Path) -> list[int]:
    ranks = started(folder)
    wait_for(lambda: "step 3 " in next((folder / "logs").glob("*_0_log.out")).read_text())
    return ranks


def check_saved(folder: Path, ranks: list[int], state: str = "cancelled") -> None:
    wait_for(lambda: not any(alive(pid) for pid in ranks))
    assert len(list(folder.glob("saved-*"))) == 2
    wait_for(lambda: json.loads((folder / "run.json").read_text())["state"] == state)


def test_ctrl_c_with_tee(tmp_path: Path) -> None:
    run = tmp_path / "run"
    terminal = Terminal(f"{FAKE} talk_until_term {run} 2 | tee {tmp_path}/log")
    ranks = ranks_talk(run)
    terminal.press(b"\x03")
    terminal.wait()
    check_saved(run, ranks)


def test_a_closed_window(tmp_path: Path) -> None:
    run = tmp_path / "run"
    terminal = Terminal(f"{FAKE} talk_until_term {run} 2; true")
    ranks = ranks_talk(run)
    terminal.close()
    check_saved(run, ranks)


def test_nohup_is_not_undone(tmp_path: Path) -> None:
    """A closed window does not reach what was started with nohup, whatever becomes of its output."""
    run = tmp_path / "run"
    terminal = Terminal(f"nohup {FAKE} talk_until_term {run} 2 > {tmp_path}/log 2>&1; true")
    ranks = ranks_talk(run)
    terminal.close()
    check_saved(run, ranks, "done")
    assert (run / "saved-0").read_text() == "100"


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    run = tmp_path / "run"
    terminal = Terminal(f"{FAKE} talk_until_term {run} 2 | head -n 2")
    ranks = ranks_talk(run)
    check_saved(run, ranks, "done")
    assert (run / "saved-0").read_text() == "100"
    terminal.wait()


def test_a_full_disk_below_the_output(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [*shlex.split(FAKE), "talk_until_term", str(run), "2"],
            env={**os.environ, "PYTHONPATH": str(HERE)}, stdout=full, stderr=full,
        )  # fmt: skip
    ranks = ranks_talk(run)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    check_saved(run, ranks)


def test_sigterm_and_sighup_at_once_are_one_request(tmp_path: Path) -> None:
    process = launch("talk_until_term", tmp_path / "run")
    ranks = ranks_talk(tmp_path / "run")
    for signum in (signal.SIGTERM, signal.SIGHUP):
        process.send_signal(signum)
    assert finish(process)[0] in (128 + signal.SIGTERM, 128 + signal.SIGHUP)
    check_saved(tmp_path / "run", ranks)


def test_a_world_that_hangs_in_a_library_ends_at_ctrl_c(tmp_path: Path) -> None:
    """Its ranks cannot handle a signal, and have nothing to save."""
    process = launch("hang", tmp_path / "run")
    ranks = started(tmp_path / "run")
    wait_for(lambda: "ready" in next((tmp_path / "run/logs").glob("*_1_log.out")).read_text())
    process.send_signal(signal.SIGINT)
    assert finish(process, 40)[0] == 130
    assert not any(alive(pid) for pid in ranks)
