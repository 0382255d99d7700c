"""A job runs the code of its submission: edits of the checkout reach no attempt and no later stage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.devcluster.cluster import DevCluster
from slurm.jobs import frozen_code
from slurm.jobs.container import ROOT
from tests.slurm.accounting import final_states
from tests.slurm.jobs.test_attempts_on_slurm import (
    HERE,
    job_of,
    losses,
    record,
    restarts,
    undisturbed,
    wait_state,
    wait_step,
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the code of this moment, in a repository of its own."""
    made = frozen_code.freeze(ROOT, tmp_path / "made")
    folder = made.rename(tmp_path / "checkout")
    for name in (frozen_code.PATCH, frozen_code.COMMIT):
        (folder / name).unlink()
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        author = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *author, *words], cwd=folder, check=True)
    frozen_code.digest.cache_clear()
    return folder


def test_equal_code_is_kept_once_and_changes_are_in_it(checkout: Path, tmp_path: Path) -> None:
    first = frozen_code.freeze(checkout, tmp_path / "runs")
    assert frozen_code.freeze(checkout, tmp_path / "runs") == first
    assert frozen_code.freeze(first, tmp_path / "runs") == first  # by hand, from inside of it
    assert (first / frozen_code.PATCH).read_bytes() == b""
    (checkout / "slurm/new_file.py").write_text("NEW = 1\n")
    changed = checkout / "conf/errors.py"
    changed.write_text(changed.read_text() + "# edited\n")
    frozen_code.digest.cache_clear()
    second = frozen_code.freeze(checkout, tmp_path / "runs")
    assert second != first and (second / "slurm/new_file.py").exists()
    assert b"+# edited" in (second / frozen_code.PATCH).read_bytes()
    assert sum(1 for _ in first.rglob("*")) < 600
    shown = [sys.executable, str(first / "launch/pretrain.py"), "--cfg", "job"]
    done = subprocess.run(shown, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "train:" in done.stdout, done.stderr


@pytest.mark.slurm
def test_an_edited_checkout_changes_no_job(devcluster: DevCluster, checkout: Path, tmp_path: Path) -> None:
    """Edited between the submission, a requeue, and the start of the job behind it."""

    def submit(name: str, steps: int, *keys: str) -> Path:
        command = [sys.executable, str(HERE / "stepping.py"), str(tmp_path / "runs" / name), "1", str(steps)]
        env = {**os.environ, "PYTHONPATH": f"{checkout}{os.pathsep}{HERE}"}
        done = subprocess.run(
            [*command, "0.1", "", *keys], env=env, capture_output=True, text=True, cwd=checkout
        )
        assert done.returncode == 0, done.stderr
        return tmp_path / "runs" / name

    first = submit("first", 40)
    job = job_of(first)
    second = submit("second", 10, f"dependency=afterok:{job}")
    (copy,) = (tmp_path / "runs" / frozen_code.FOLDER).iterdir()
    wait_step(first, 10)
    for name in ("elm_megatron/run/folder.py", "slurm/jobs/executors.py", "slurm/jobs/outcome.py"):
        (checkout / name).write_text("raise RuntimeError('edited')\n")
    devcluster.command("scancel", "-s", "USR2", job)
    for run, steps in ((first, 40), (second, 10)):
        wait_state(run, "done")
        assert losses(run) == undisturbed(steps) and record(run)["code"] == str(copy)
        assert final_states(devcluster, job_of(run))[-1] == "COMPLETED"
    assert restarts(first) == [0, 1]
