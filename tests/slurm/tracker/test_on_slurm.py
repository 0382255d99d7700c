"""The tracker beside a real Slurm: hostile names, arrays, requeues, a controller that stops, sacct's sums."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from threading import Event

import pytest

from elm_megatron.run.folder import RunFolder, append_jsonl
from slurm.devcluster import processes
from slurm.devcluster.cluster import DevCluster
from slurm.tracker import efficiency, listing, poll
from slurm.tracker.history import DAY, History
from slurm.tracker.rates import Rates
from slurm.tracker.summary import summarize
from tests.slurm.accounting import states

ELM_QUEUE = [sys.executable, "-m", "slurm.tracker"]
HOSTILE = (
    "<script>alert(1)</script>",
    "\x1b[2J\x1b[31mred",
    "comma, pipe | quote \" and '",
    "two\nlines\tand a tab",
    "=HYPERLINK(1)",
    "smile 😀 日本",
    "\u202eright to left",
    "x" * 500,
)


def elm_queue(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ELM_QUEUE, *argv], capture_output=True, text=True, timeout=120)


def test_hostile_names_and_arrays(devcluster: DevCluster, submit) -> None:
    ids = {submit("--hold", f"--job-name={name}"): name for name in HOSTILE}
    array = submit("--array=1-9%2", "--gpus-per-node=1")
    assert processes.wait_until(
        lambda: sum(job.running for job in poll.picture().jobs if job.array_id == int(array)) == 2, 30, 0.5
    )
    picture = poll.picture()
    by_id = {str(job.job_id): job for job in picture.jobs}
    assert {job_id: by_id[job_id].name for job_id in ids} == ids, "every name arrives as it was given"
    waiting = by_id[array]
    assert (waiting.shown_id, waiting.tasks) == (f"{array}_[3-9%2]", 7)

    table = elm_queue("list")
    assert table.returncode == 0
    lines = table.stdout.rstrip("\n").split("\n")
    assert len(lines) == 1 + len(HOSTILE) + 3 + 1, "header, names, array (two run, the rest is one line), age"
    assert "\x1b" not in table.stdout
    assert "\u202e" not in table.stdout

    text = elm_queue("list", "--csv").stdout
    rows = {row["job_id"]: row for row in csv.DictReader(io.StringIO(text))}
    assert len(text.splitlines()) == len(rows) + 1
    assert not [
        cell for row in rows.values() for cell in row.values() if cell.startswith(("=", "+", "-", "@"))
    ]
    assert rows[array]["tasks"] == "7"


HETEROGENEOUS = """#!/bin/sh
#SBATCH --nodes=1 --job-name=two-sizes --output=/dev/null
#SBATCH hetjob
#SBATCH --nodes=2 --gpus-per-node=1
sleep 300
"""


def test_a_heterogeneous_job_has_a_line_for_each_part(devcluster: DevCluster, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(HETEROGENEOUS)
    job = devcluster.command("sbatch", "--parsable", "--hold", str(script)).stdout.strip()
    listed = json.loads(elm_queue("list", "--json").stdout)["jobs"]
    assert [(row["id"], row["nodes"], row["gpus"]) for row in listed] == [
        (f"{job}+0", 1, 0),
        (f"{job}+1", 2, 2),
    ]
    assert f"{job}+1: Its owner root holds it." in elm_queue("why", f"{job}+1").stdout
    assert elm_queue("eta", f"{job}+0").returncode == 0
    devcluster.command("scontrol", "release", job)
    assert processes.wait_until(
        lambda: [one.state for one in poll.picture().jobs] == ["RUNNING", "RUNNING"], 30, 0.5
    )
    assert "It does not wait: it is running" in elm_queue("why", f"{job}+1").stdout


def test_a_requeued_job_has_two_attempts(devcluster: DevCluster, submit, tmp_path: Path) -> None:
    job = submit("--nodes=1", script="sleep $((SLURM_RESTART_COUNT ? 1 : 300))")
    assert processes.wait_until(lambda: states(devcluster, job) == ["RUNNING"], 30, 0.3)
    devcluster.command("scontrol", "requeue", job)
    assert processes.wait_until(lambda: states(devcluster, job)[-1:] == ["COMPLETED"], 60, 0.5)
    history = History(tmp_path / "history.sqlite")
    history.sync(days=1)
    attempts = history.attempts("job_id = ?", (job,))
    assert [attempt.state for attempt in attempts] == ["REQUEUED", "COMPLETED"]
    assert attempts[0].submit < attempts[1].submit
    history.sync()
    assert len(history.attempts("job_id = ?", (job,))) == 2, "read again, still two"


def test_a_controller_that_stops_while_everyone_asks(devcluster: DevCluster, submit) -> None:
    submit("--hold", "--job-name=keeps")
    pictures: list[dict] = []
    scrapes: list[tuple[float, int]] = []
    stopped, over = Event(), Event()

    def ask() -> None:
        while not over.is_set():
            surely_stopped = stopped.is_set()
            listed = elm_queue("list", "--json")
            assert listed.returncode == 0, listed.stderr
            pictures.append(json.loads(listed.stdout) | {"surely_stopped": surely_stopped})
            scraped = elm_queue("metrics")
            up, age = (sample(scraped.stdout, name) for name in ("elm_queue_up", "elm_queue_age_seconds"))
            assert scraped.returncode == (0 if up else 1)
            assert 'elm_queue_jobs{partition="low",state="pending"} 1.0\n' in scraped.stdout
            scrapes.append((up, age))

    def seen(fresh: bool) -> None:
        """Wait for two more answers of that kind from both."""
        start = len(scrapes)
        assert processes.wait_until(
            lambda: [up for up, _ in scrapes[start:]][-2:] == [fresh, fresh] or asking.done(), 150, 0.2
        )
        if asking.done():
            asking.result()

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            seen(fresh=True)
            devcluster.stop("slurmctld")
            stopped.set()
            seen(fresh=False)
        finally:
            devcluster.start("slurmctld")
        try:
            seen(fresh=True)
        finally:
            over.set()
        asking.result()
    assert all([job["name"] for job in picture["jobs"]] == ["keeps"] for picture in pictures), "never empty"
    changes = [stale for stale, _ in groupby(picture["stale"] for picture in pictures)]
    assert changes == [False, True, False]
    old = [picture["age"] for picture in pictures if picture["stale"]]
    assert old == sorted(old), "the age grows"
    assert len(old) < 2 or old[-1] > old[0]
    # A squeue caught in the middle of the shutdown may have other words for it.
    failures = [p["failure"] for p in pictures if p["stale"] and p["surely_stopped"]]
    assert failures and all("Unable to contact slurm controller" in failure for failure in failures), failures
    assert [bool(up) for up, _ in groupby(up for up, _ in scrapes)] == [True, False, True]


def sample(text: str, name: str) -> float:
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name} "))
    return float(line.split()[1])


def test_accounting_that_stops_leaves_the_history_marked(
    devcluster: DevCluster, submit, tmp_path: Path
) -> None:
    page, job = tmp_path / "report.html", submit("--hold")
    assert elm_queue("report", "--since", "1d", "--html", str(page)).returncode == 0
    assert "Stale" not in page.read_text()
    devcluster.stop("slurmdbd")
    try:
        assert elm_queue("report", "--since", "1d", "--html", str(page)).returncode == 0
        assert "Stale: accounting was last read" in page.read_text()
        for command in (("eta", job), ("budget",)):
            told = elm_queue(*command)
            assert told.returncode == 0
            assert re.search("STALE history: .* old, because sacct: .*Connection refused", told.stdout)
        for command in (("eff", job), ("history",)):
            refused = elm_queue(*command)
            assert (refused.returncode, refused.stdout) == (1, "")
            assert re.fullmatch("elm-queue: sacct: .*Connection refused\n", refused.stderr)
        assert elm_queue("list").returncode == 0
    finally:
        devcluster.start("slurmdbd")


@pytest.mark.parametrize("with_timeout", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_figures_agree_with_sacct_to_the_second(
    devcluster: DevCluster, submit, tmp_path: Path, with_timeout: bool
) -> None:
    begin = int(time.time()) - 1
    stopped = submit("--gpus-per-node=1", "--nodelist=n1", script="sleep 300")
    again = submit("--nodelist=n2", script="sleep $((SLURM_RESTART_COUNT ? 1 : 300))")
    jobs = [
        submit("--gpus-per-node=2", "--nodes=2", script="sleep 3"),
        submit("--gpus-per-node=1", script="sleep 2; exit 4"),
        submit("--array=1-3%1", "--gpus-per-node=1", script="sleep 1"),
        submit("--partition=high", "--nodes=1", script="sleep 1"),
        submit("--begin=now+4", script="sleep 1"),
    ]
    if with_timeout:  # Slurm's shortest time limit is a minute, and it looks every half minute
        jobs.append(submit("--gpus-per-node=1", "--time=1", script="sleep 300"))
    cancelled = submit("--hold")
    devcluster.command("scancel", cancelled)
    for job in (stopped, again):
        assert processes.wait_until(lambda job=job: states(devcluster, job) == ["RUNNING"], 30, 0.5)
    devcluster.command("scancel", stopped)
    devcluster.command("scontrol", "requeue", again)
    last = submit(f"--dependency=afterany:{':'.join([*jobs, again])}", "--cpus-per-task=3", script="sleep 1")
    assert processes.wait_until(lambda: states(devcluster, last) == ["COMPLETED"], 240, 0.5)

    history = History(tmp_path / "history.sqlite")
    history.sync(days=1)
    known = {
        (attempt.shown_id, attempt.submit): attempt for attempt in history.attempts("submit >= ?", (begin,))
    }
    # Reserved is the name of sacct's Planned up to 22.05.
    columns = "JobID,Submit,ElapsedRaw,Reserved,Start,AllocTRES"
    since = datetime.fromtimestamp(begin, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    text = subprocess.run(
        ["sacct", "-XnPDa", "-S", since, f"--format={columns}"],
        env=devcluster.environment | {"TZ": "UTC"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    gpu_seconds = checked = 0
    for line in text.splitlines():
        shown_id, submitted, elapsed, reserved, start, tres = line.split("|")
        key = (shown_id, int(datetime.fromisoformat(submitted).replace(tzinfo=UTC).timestamp()))
        if key not in known:
            continue
        attempt = known[key]
        assert attempt.elapsed == int(elapsed), line
        if start not in ("Unknown", "None"):
            hours, minutes, seconds = map(int, reserved.split(":"))
            assert attempt.waited == hours * 3600 + minutes * 60 + seconds, line
            checked += 1
        gpus = next(
            (int(entry.split("=")[1]) for entry in tres.split(",") if entry.startswith("gres/gpu=")), 0
        )
        gpu_seconds += int(elapsed) * gpus
    assert checked == 11 + with_timeout, "every attempt that started"
    mixed = {attempt.state for attempt in known.values()}
    assert mixed >= {"COMPLETED", "FAILED", "CANCELLED", "REQUEUED"} | (
        {"TIMEOUT"} if with_timeout else set()
    )
    found = summarize(history, Rates(tmp_path), begin, time.time() + DAY)
    assert found.total.gpu_hours == pytest.approx(gpu_seconds / 3600, abs=1 / 3600)
    assert gpu_seconds >= 4 * 3 + 2 + 3


# Three seconds of one core, however long that takes on a busy machine.
BURN = "import time\nwhile time.process_time() < 3: pass"


def test_efficiency_of_a_real_job(devcluster: DevCluster, submit) -> None:
    again = "[ $SLURM_RESTART_COUNT ] || { scontrol requeue $SLURM_JOB_ID; sleep 300; }"
    job = submit("--ntasks=1", "--cpus-per-task=2", script=f"{again}; {sys.executable} -c '{BURN}'")
    assert processes.wait_until(lambda: states(devcluster, job) == ["REQUEUED", "COMPLETED"], 60, 0.5)
    first, found = efficiency.measure("-j", job)
    assert (first.state, found.state) == ("REQUEUED", "COMPLETED")
    assert found.cpu * found.elapsed * 2 == pytest.approx(3, abs=1)
    assert found.limit == 600
    assert elm_queue("eff", job).stdout.count("\n") == 3


def test_eta_and_budget_on_a_real_queue(devcluster: DevCluster, submit, tmp_path: Path) -> None:
    job = submit("--hold", "--gpus=4", "--time=1:00:00")
    found = elm_queue("eta", job)
    assert found.returncode == 0, found.stderr
    assert "history" in found.stdout or "source" in found.stdout
    (tmp_path / "site.yaml").write_text(
        "partition: low\nsite: {gpus: 4, cores: 16, gpu_hour_rate: 192, budget_unit: SBU}\n"
    )
    rows = listing.rows(poll.picture(), listing.Filters(), Rates(tmp_path))
    assert rows[0].units == pytest.approx(768)
    text = elm_queue("--sites", str(tmp_path), "budget").stdout
    assert "768.0" in text
    assert "in SBU" in text


def test_an_own_run_is_found_by_its_comment(devcluster: DevCluster, submit, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "tiny")
    run.create()
    run.update(state="running", step=0, steps=100)
    for step in range(1, 6):
        row = {"step": step, "loss": 4.5, "tokens_per_second": 800.0, "step_seconds": 3.0}
        append_jsonl(run.metrics, row)
    job = submit(f"--comment=elm:{run.path}")
    assert processes.wait_until(lambda: states(devcluster, job) == ["RUNNING"], 30, 0.5)
    (found,) = json.loads(elm_queue("list", "--json").stdout)["jobs"]
    assert (found["step"], found["steps"], found["loss"]) == (5, 100, 4.5)
    assert found["run_ends"] == pytest.approx(time.time() + 95 * 3, abs=20)
    assert "95 steps left × 3 s, the median step" in elm_queue("eta", job).stdout
