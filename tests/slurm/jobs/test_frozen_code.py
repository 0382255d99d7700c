"""A job runs the code of its submission: edits of the checkout reach no attempt and no later stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from elm_megatron.run.folder import RunFolder
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
    copied = {str(path.relative_to(first)) for path in first.rglob("*") if path.is_file()}
    listed = subprocess.check_output(["git", "ls-tree", "-r", "--name-only", "HEAD"], cwd=checkout, text=True)
    assert copied == {*listed.split(), frozen_code.PATCH, frozen_code.COMMIT}
    assert not [name for name in copied if name.startswith(("tests/", ".venv"))]
    shown = [sys.executable, str(first / "launch/pretrain.py"), "--cfg", "job"]
    done = subprocess.run(shown, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "train:" in done.stdout, done.stderr


def test_copies_that_nobody_needs_are_removed_after_a_month(tmp_path: Path) -> None:
    """Those of runs in progress stay however old they are, and those of runs that ended lately."""
    runs, now = tmp_path / "runs", time.time()
    old = now - (frozen_code.UNUSED_DAYS + 1) * 86400
    code = runs / frozen_code.FOLDER
    for name in ("unknown", "waits", "ended", "ended-lately", "young"):
        (code / name / "conf").mkdir(parents=True)
        if name != "young":
            os.utime(code / name, (old, old))
    for name, state, updated in (
        ("waits", "submitted", old),
        ("ended", "done", old),
        ("ended-lately", "failed", now),
    ):
        run = RunFolder(runs / name)
        run.create()
        run.update(state=state, code=str(code / name))
        run.run_json.write_text(json.dumps(run.read() | {"updated": updated}))
    assert frozen_code.clean(runs) == 2
    assert sorted(path.name for path in code.iterdir()) == ["ended-lately", "waits", "young"]
    assert frozen_code.clean(runs) == 0 and frozen_code.clean(tmp_path / "nowhere") == 0


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
