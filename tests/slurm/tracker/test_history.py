"""The history keeps every attempt once; report, budget and eta count from it what a person would count."""

from __future__ import annotations

import re
import runpy
import sqlite3
import time
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path

import pytest

from conf.errors import InputError
from slurm.tracker import budget, command, eta, report, summary
from slurm.tracker.command import Unreachable
from slurm.tracker.history import COLUMNS, DAY, History
from slurm.tracker.poll import Picture
from slurm.tracker.rates import Rates
from slurm.tracker.runs import Progress
from slurm.tracker.sacct import Attempt
from slurm.tracker.squeue import FIELDS, Job, parse
from slurm.tracker.summary import summarize

NOW = 1_770_000_000


def attempt(job_id: str = "1", **values) -> Attempt:
    """A finished attempt of one hour on one node with four GPUs, submitted two hours before `NOW`."""
    base = {
        "cluster": "c",
        "job_id": job_id,
        "shown_id": job_id,
        "user": "anna",
        "account": "eur",
        "partition": "low",
        "qos": "normal",
        "state": "COMPLETED",
        "exit_code": "0:0",
        "submit": NOW - 7200,
        "eligible": NOW - 7200,
        "start": NOW - 7000,
        "end": NOW - 3400,
        "elapsed": 3600,
        "limit": 7200,
        "nodes": 1,
        "cpus": 64,
        "gpus": 4,
        "memory_mib": 1000,
        "energy_joules": None,
        "comment": "",
        "name": "train",
    }
    return Attempt(**base | values)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history.sqlite")


@pytest.fixture
def rates(tmp_path: Path) -> Rates:
    folder = tmp_path / "sites"
    folder.mkdir()
    (folder / "site.yaml").write_text(
        "partition: low\nsite: {gpus: 4, cores: 64, memory_gb: 720, gpu_hour_rate: 192, budget_unit: SBU}\n"
    )
    return Rates(folder)


# ---- keeping


def test_two_attempts_of_one_id_are_two(history: History) -> None:
    history.add(
        [attempt(state="PREEMPTED"), attempt(submit=NOW - 3000, start=NOW - 2900, end=None, state="RUNNING")]
    )
    assert [one.state for one in history.attempts()] == ["PREEMPTED", "RUNNING"]


def test_a_life_read_again_replaces_what_was_known(history: History) -> None:
    history.add([attempt(state="RUNNING", end=None, elapsed=5)])
    history.add([attempt()])
    assert history.attempts() == [attempt()]


def test_sync_reads_only_what_is_new(history: History, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr("slurm.tracker.history.read", lambda begin, end: asked.append((begin, end)) or [])
    history.sync(days=20)
    assert len(asked) == 2, "a week, and twice as long after a week without a job"
    assert asked[0][1] == asked[1][0]
    assert asked[-1][1] is None
    asked.clear()
    history.sync(days=20)
    assert len(asked) == 1
    assert time.time() - asked[0][0] < 1000, "from a little before the last time on"
    monkeypatch.setenv("ELM_QUEUE_MAX_AGE", "30")
    history.sync(days=20)
    assert len(asked) == 1, "not again within thirty seconds"


def test_sync_reads_further_back_when_it_is_asked_to(history: History, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr("slurm.tracker.history.read", lambda begin, end: asked.append((begin, end)) or [])
    monkeypatch.setenv("ELM_QUEUE_MAX_AGE", "30")
    history.sync(days=10)
    (oldest, _), *_ = asked
    asked.clear()
    history.sync(days=20)
    assert asked[-1][1] == pytest.approx(oldest), "up to what is known"
    assert asked[0][0] == pytest.approx(time.time() - 20 * DAY, abs=60)
    asked.clear()
    history.sync(days=20)
    assert asked == []


def test_what_was_known_stays_when_accounting_is_silent(history: History, monkeypatch) -> None:
    def silent(begin: float, end: float | None) -> list[Attempt]:
        raise Unreachable("sacct: connection refused")

    history.add([attempt()])
    monkeypatch.setattr("slurm.tracker.history.read", silent)
    with pytest.raises(Unreachable):
        history.sync()
    assert len(history.attempts()) == 1
    assert history.synced is None


def test_a_file_that_is_no_history_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough to be looked at" * 100)
    with pytest.raises(InputError, match="not readable as a history"):
        History(tmp_path / "text")
    History(tmp_path / "newer")
    with sqlite3.connect(tmp_path / "newer") as connection:
        connection.execute("UPDATE meta SET value = 9 WHERE key = 'schema'")
    with pytest.raises(InputError, match=r"schema 9.*reads schema 3"):
        History(tmp_path / "newer")


def test_ten_years_are_few_questions(history: History, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr("slurm.tracker.history.read", lambda begin, end: asked.append((begin, end)) or [])
    history.sync(days=3640)
    assert len(asked) < 12
    assert all(before[1] == after[0] for before, after in pairwise(asked)), "without a gap"


def test_the_file_of_the_first_schema_is_taken_over(tmp_path: Path) -> None:
    """The tables as commit 62c88f5 made them."""
    columns = ", ".join(f'"{name}"' for name in COLUMNS)
    with sqlite3.connect(tmp_path / "old.sqlite") as connection:
        connection.execute(f"CREATE TABLE lives ({columns}, PRIMARY KEY (cluster, job_id, submit))")
        connection.execute('CREATE INDEX lives_end ON lives ("end", state, energy_joules)')
        connection.execute("CREATE INDEX lives_start ON lives (partition, start)")
        connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value REAL)")
        connection.execute("INSERT INTO meta VALUES ('schema', 1), ('synced', 5)")
        connection.execute(f"INSERT INTO lives VALUES ({', '.join('?' * len(COLUMNS))})", astuple(attempt()))
    connection.close()
    found = History(tmp_path / "old.sqlite")
    assert found.attempts() == [attempt()]
    assert found.synced == 5
    assert History(tmp_path / "old.sqlite").attempts() == [attempt()], "once"


def queue_of(*jobs: Job) -> Picture:
    return Picture(list(jobs), [], taken=NOW, seconds=0.1)


def test_a_runaway_job_is_named_and_not_spent(history: History, rates: Rates, monkeypatch) -> None:
    monkeypatch.setattr("slurm.tracker.command.run", lambda argv, timeout=60: "3\n")
    command.cluster_name.cache_clear()
    monkeypatch.setattr(command, "cluster_name", lambda: "c")
    since = NOW - 300 * DAY
    forgotten = {
        "submit": since,
        "eligible": since,
        "start": since,
        "end": None,
        "elapsed": 9,
        "state": "RUNNING",
    }
    unlimited = forgotten | {"limit": None}
    history.add(
        [attempt("1"), attempt("2", **unlimited), attempt("3", **unlimited), attempt("4", **unlimited)]
    )
    alive = waiting(JobID="4", State="RUNNING", SubmitTime="2025-04-08T02:40:00")
    alive.submit = since
    lost = history.runaways(queue_of(alive))
    assert [one.job_id for one in lost] == ["2"], "3 is known to the controller, 4 runs"
    (found,) = budget.accounts(history, [], rates, days=30, now=NOW)
    assert found.spent == pytest.approx(768 + 2 * 30 * 24 * 768)
    summary_ = summarize(history, rates, NOW - DAY, NOW, lost)
    assert summary_.total.gpu_hours == pytest.approx(4 + 2 * 24 * 4)
    page = report.page(summary_, rates, [])
    assert "1 runaway job(s) are not counted: 2." in page


def test_a_running_job_costs_no_more_than_its_limit(history: History, rates: Rates) -> None:
    history.add([attempt(start=NOW - 9 * DAY, end=None, elapsed=5, state="RUNNING", limit=7200)])
    assert summarize(history, rates, NOW - 30 * DAY, NOW).total.gpu_hours == pytest.approx(8)


def test_the_queue_tells_what_accounting_does_not_keep(history: History) -> None:
    unknown = attempt(end=None, state="RUNNING", gpus=0, comment="")
    history.add([unknown])
    job = waiting(JobID="1", State="RUNNING", Comment="elm:/runs/tiny")
    job.submit, job.gpus, job.cluster = NOW - 7200, 8, "c"
    history.learn([job])
    history.add([attempt(gpus=0, comment="")])
    (found,) = history.attempts()
    assert (found.gpus, found.comment, found.state) == (8, "elm:/runs/tiny", "COMPLETED")


# ---- report


def test_sums_are_those_of_the_attempts(history: History, rates: Rates) -> None:
    never_ran = attempt("3", start=None, end=NOW - 10, elapsed=0, state="CANCELLED")
    other = attempt("4", partition="other")
    history.add([attempt("1"), attempt("2", user="ben", gpus=2, cpus=32), never_ran, other])
    found = summarize(history, rates, NOW - DAY, NOW)
    assert found.total.jobs == 3
    assert found.total.gpu_hours == pytest.approx(4 + 2 + 4)
    assert found.total.units == pytest.approx(768 + 384)
    assert found.unpriced == 1
    assert found.by_user["ben"].gpu_hours == pytest.approx(2)
    assert found.states == {"COMPLETED": 3, "CANCELLED": 1}
    assert found.waits_by_partition["low"].samples == 2
    assert found.waits_by_partition["low"].p50 == 200
    assert sum(day.gpu_hours for day in found.by_day) == pytest.approx(found.total.gpu_hours)


def test_a_life_is_cut_to_the_period_and_to_its_days(history: History, rates: Rates) -> None:
    midnight = NOW - NOW % DAY
    history.add(
        [
            attempt("1", start=midnight - 1800, end=midnight + 5400, elapsed=7200),
            attempt("2", start=midnight + 600, end=None, elapsed=10, state="RUNNING"),
        ]
    )
    found = summarize(history, rates, midnight - 900, midnight + 4200)
    assert [day.gpu_hours for day in found.by_day] == pytest.approx([4 * 0.25, 4 * 4200 / 3600 + 4 * 1.0])
    assert found.waits_by_day[0] is None, "the first one had started before the period"


def test_a_suspension_does_not_count(history: History, rates: Rates) -> None:
    history.add([attempt(elapsed=1800)])
    assert summarize(history, rates, NOW - DAY, NOW).total.gpu_hours == pytest.approx(2)


def test_energy_by_slurm_and_by_our_runs(history: History, rates: Rates) -> None:
    history.add([attempt(energy_joules=7_200_000)])
    rows = [("/run", NOW - 9 * DAY, 1.0), ("/run", NOW - 2 * DAY, 4.0), ("/run", NOW - DAY, 6.5)]
    history.connection.executemany("INSERT INTO energy VALUES (?, ?, ?)", rows)
    found = summarize(history, rates, NOW - 7 * DAY, NOW)
    assert (found.slurm_kwh, found.run_kwh) == (2.0, 5.5)
    nothing = summarize(history, rates, NOW - 30 * DAY, NOW - 20 * DAY)
    assert (nothing.slurm_kwh, nothing.run_kwh) == (None, None)


def test_the_page_is_whole_and_harmless(history: History, rates: Rates) -> None:
    history.add([attempt(user="<script>alert(1)</script>", account='"><img src=x>', partition="a&b\x1b[1m")])
    page = report.page(summarize(history, rates, NOW - DAY, NOW), rates, [], "sacct: <down>")
    assert "<script" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page
    assert "Stale: accounting was last read" in page
    assert "sacct: &lt;down&gt;" in page
    assert not re.findall(r"<[^>]+(?:src|href)\s*=|url\(|@import", page), "it loads nothing"
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_the_page_says_what_an_account_spends_a_day(history: History, rates: Rates) -> None:
    history.add([attempt()])
    page = report.page(summarize(history, rates, NOW - 4 * DAY, NOW), rates, [])
    assert "<td>eur</td><td>768.0</td><td>192.0</td>" in page


def test_an_empty_period_makes_a_page(history: History, rates: Rates) -> None:
    page = report.page(summarize(history, rates, NOW - DAY, NOW), rates, [])
    assert "Nothing in this period." in page


def test_few_users_and_the_others(history: History, rates: Rates) -> None:
    history.add([attempt(str(n), user=f"u{n:02d}", gpus=n) for n in range(1, 31)])
    users = summarize(history, rates, NOW - DAY, NOW).by_user
    assert next(iter(users)) == "u30"
    assert list(users)[-1] == "15 others"
    assert users["15 others"].gpu_hours == pytest.approx(sum(range(1, 16)))


@pytest.mark.slow
def test_a_million_jobs(tmp_path: Path, rates: Rates) -> None:
    history = History(tmp_path / "million.sqlite")
    invented = runpy.run_path(str(Path(__file__).with_name("invented.py")))
    history.add(list(invented["attempts"](1_000_000, NOW, days=7)))
    begin = time.process_time()
    found = summarize(history, rates, NOW - 7 * DAY, NOW)
    report.page(found, rates, [])
    seconds = time.process_time() - begin
    print(f"report on a million jobs: {seconds:.2f} s of the processor")
    assert found.total.jobs > 950_000
    assert seconds < 5


# ---- budget


def waiting(**fields: str) -> Job:
    row = dict.fromkeys(FIELDS, "(null)")
    base = {"JobID": "9", "JobArrayID": "9", "Account": "eur", "Partition": "low", "State": "PENDING"}
    base |= {
        "TimeLimit": "2:00:00",
        "NumNodes": "1",
        "NumCPUs": "64",
        "tres-alloc": "gres/gpu=4",
        "TimeUsed": "0:00",
    }
    (found,) = parse("".join(value + "|" for value in (row | base | fields).values()), "|")
    return found


def test_spent_committed_and_forecast(history: History, rates: Rates) -> None:
    history.add([attempt("1"), attempt("2", start=NOW - 1800, end=None, elapsed=0, state="RUNNING"),
                 attempt("3", start=NOW - 10 * DAY, end=NOW - 10 * DAY + 3600)])  # fmt: skip
    jobs = [
        waiting(JobArrayID="9_[0-2]", ArrayTaskID="0-2"),
        waiting(State="RUNNING", TimeUsed="30:00"),
    ]
    (found,) = budget.accounts(history, jobs, rates, days=30, now=NOW)
    assert found.spent == pytest.approx(768 * 2.5)
    assert found.recent == pytest.approx(768 * 1.5)
    assert found.waiting == pytest.approx(768 * 2 * 3)
    assert found.running == pytest.approx(768 * 1.5)
    assert found.burn(30) == pytest.approx(768 * 1.5 / 7)
    text = budget.text([found], rates, 30, {"eur": 10_000})
    assert f"{(10_000 - 768 * 2.5) / found.burn(30):,.0f} days" in text


def test_a_partition_without_a_rate_is_counted_apart(history: History, rates: Rates) -> None:
    history.add([attempt(partition="other")])
    jobs = [waiting(Partition="other"), waiting(TimeLimit="UNLIMITED"), waiting()]
    text = budget.text(budget.accounts(history, jobs, rates, 30, NOW), rates, 30, {})
    assert "3 job(s) in partitions without a rate or without a time limit are not counted" in text


def test_a_job_pays_its_largest_share(rates: Rates) -> None:
    assert rates.units("low", gpus=1, cpus=16, memory_mib=0, seconds=3600) == pytest.approx(192)
    assert rates.units("low", gpus=1, cpus=64, memory_mib=0, seconds=3600) == pytest.approx(768)
    assert rates.units("low", gpus=0, cpus=1, memory_mib=360 * 1024, seconds=3600) == pytest.approx(384)
    assert rates.units("other,low", gpus=4, cpus=1, memory_mib=None, seconds=1800) == pytest.approx(384)
    assert rates.units("other", 4, 1, None, 1) is None


def test_two_sites_may_have_a_partition_of_the_same_name(tmp_path: Path) -> None:
    def site(name: str, rate: int, cluster: str = "") -> None:
        values = f"gpus: 4, gpu_hour_rate: {rate}" + (f", slurm_cluster: {cluster}" if cluster else "")
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\npartition: gpu\nsite: {{{values}}}\n")

    site("delft", 100)
    site("leiden", 200, "alice")
    found = Rates(tmp_path)
    assert [found.units("gpu", 4, 1, 0, 3600, name) for name in ("alice", "delft", "elsewhere")] == [
        800,
        400,
        400,
    ]
    assert found.units("gpu", 4, 1, 0, 3600) is None
    assert found.notes() == [
        "partition gpu has different rates in delft.yaml and leiden.yaml: name the Slurm cluster of each in "
        "site.slurm_cluster"
    ]


@pytest.mark.parametrize("value", ["192 SBU", "[1]", "-3", ".nan"])
def test_a_rate_with_a_unit_is_one_sentence(tmp_path: Path, value: str) -> None:
    (tmp_path / "one.yaml").write_text(f"partition: gpu\nsite: {{gpus: 4, gpu_hour_rate: {value}}}\n")
    with pytest.raises(InputError, match=r"one.yaml: site.gpu_hour_rate: found .*; allowed is a number"):
        Rates(tmp_path)


def test_a_site_inherits_and_prices_its_cpu_partition(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(
        "partition: gpu\ncpu_partition: rome\n"
        "site: {gpus: 4, cores: 64, gpu_hour_rate: 192, core_hour_rate: 1, budget_unit: SBU}\n"
    )
    (tmp_path / "two.yaml").write_text(
        "defaults: [one]\npartition: old\nsite: {gpu_hour_rate: 128, cores: 72}\n"
    )
    (tmp_path / "local.yaml").write_text("name: local\n")
    found = Rates(tmp_path)
    assert found.units("gpu", 4, 64, 0, 3600) == pytest.approx(768)
    assert found.units("old", 4, 72, 0, 3600) == pytest.approx(512)
    assert found.units("rome", 0, 32, 10_000, 3600) == pytest.approx(32)
    assert found.unit == "SBU"
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InputError, match="not readable as YAML"):
        Rates(tmp_path)


def test_the_repositorys_own_sites_have_rates() -> None:
    assert {"gpu_h100", "gpu_a100", "rome"} <= set(Rates().by_partition)


# ---- eta


def many(count: int) -> list[Attempt]:
    recent = int(time.time()) - 5 * DAY
    return [
        attempt(str(n), submit=recent, eligible=recent, start=recent + 60 * n) for n in range(1, count + 1)
    ]


def test_history_speaks_from_twenty_jobs_on(history: History) -> None:
    job = waiting()
    history.add(many(19))
    assert eta.waits_like(job, history).p50 is None
    history.add(many(20))
    waits = eta.waits_like(job, history)
    assert (waits.samples, waits.p50, waits.p90) == (20, 600, 1080)
    assert eta.waits_like(waiting(NumNodes="2"), history).samples == 0, "another size"
    assert eta.waits_like(waiting(TimeLimit="5:00:00"), history).samples == 0, "another time limit"
    assert eta.waits_like(waiting(Partition="high"), history).samples == 0


def test_who_has_waited_long_is_compared_with_those_who_did(history: History) -> None:
    history.add(many(60))
    assert eta.waits_like(waiting(), history, waited=1800).p50 == 45 * 60


def test_each_line_names_its_source(history: History) -> None:
    job = waiting(EligibleTime="2026-03-01T08:00:00")
    text = "\n".join(eta.estimate(job, None, history, job.eligible + 60))
    assert "start unknown to Slurm's scheduler" in text
    assert "history is silent: 0 jobs like this one, 20 are needed" in text
    job.start = job.eligible + 600
    assert "(source: Slurm's scheduler)" in eta.estimate(job, None, history, job.eligible + 60)[0]


def test_history_counts_from_the_moment_a_job_may_start(history: History) -> None:
    history.add(many(20))
    job = waiting()
    job.eligible = int(time.time()) + 7200
    (_, told, _) = eta.estimate(job, None, history, time.time())
    assert f"start by {eta.moment(job.eligible + 600)} in half of the cases" in told


@pytest.mark.parametrize("reason", ["JobHeldUser", "DependencyNeverSatisfied", "BadConstraints"])
def test_no_start_is_promised_to_a_job_that_is_stuck(history: History, reason: str) -> None:
    history.add(many(20))
    job = waiting(Reason=reason)
    told = "\n".join(eta.estimate(job, None, history, time.time()))
    assert "does not start as it is" in told
    assert "once it may start, half of the cases wait 10:00, nine of ten 18:00 at most" in told
    assert "end unknown, like its start; it may run 2:00:00" in told
    assert "start by" not in told


def test_without_accounting_the_scheduler_still_speaks() -> None:
    job = waiting()
    job.start = int(time.time()) + 600
    start, end = eta.estimate(job, None, None, time.time())
    assert "(source: Slurm's scheduler)" in start
    assert "(source: its start and its time limit)" in end


def run_of(step: int, steps: int, seconds: float) -> Progress:
    return Progress(Path("/run"), "running", step, steps, 2.0, 1000.0, seconds, None, None)


def test_the_end_of_a_training_counts_steps_attempts_and_waits(history: History) -> None:
    now = time.time()
    job = waiting(State="RUNNING")
    job.end = int(now) + 3601
    (line,) = eta.end_lines(job, run_of(100, 400, 10.0), now, now, again=None)
    assert "300 steps left × 10 s" in line
    assert "start(s)" not in line
    (line,) = eta.end_lines(job, run_of(0, 1800, 10.0), now, now, again=500)
    assert "+ 2 more start(s) × 8:20, the median wait" in line
    assert eta.moment(now + 18_000 + 1000) in line
    (line,) = eta.end_lines(job, run_of(0, 1800, 10.0), now, now, again=None)
    assert "2 more start(s), whose waits are unknown" in line


def test_day_bars_cover_the_period() -> None:
    days = summary.day_starts(NOW - 7 * DAY, NOW)
    assert days[0] == NOW - 7 * DAY
    assert all(day % DAY == 0 for day in days[1:])
    assert days[-1] < NOW
