"""Our own runs join the list with care, efficiency gives advice, and the metrics have bounded labels."""

from __future__ import annotations

import getpass
import json
import os
import re
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from elm_megatron.run.folder import RunFolder, append_jsonl
from slurm.tracker import efficiency, listing, metrics, poll, runs
from slurm.tracker.__main__ import main
from slurm.tracker.logs import log_path, log_tail
from slurm.tracker.rates import Rates

ME = getpass.getuser()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run at step 40 of 100 with a step time of 2 s, in the suite's own format."""
    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.create()
    folder.update(state="running", step=30, steps=100, kwh=1.5)
    for step in range(1, 41):
        seconds = 20.0 if step == 1 else 2.0
        append_jsonl(
            folder.metrics,
            {
                "step": step,
                "loss": 5 - step / 20,
                "tokens_per_second": 900.0,
                "step_seconds": seconds,
                "time": 1.7e9,
            },
        )
    return folder


# ---- runs


def test_a_run_is_joined(run: RunFolder) -> None:
    found = runs.progress_of(f"elm:{run.path}", ME)
    assert (found.step, found.steps, found.loss, found.kwh) == (40, 100, 3.0, 1.5)
    assert found.step_seconds == 2.0, "the median is not moved by the slow first step"
    assert found.seconds_left == 120


def test_the_list_shows_the_run(run: RunFolder, fake_slurm, rows) -> None:
    fake_slurm.answer(
        [rows(1, UserName=ME, State="RUNNING", Comment=f"elm:{run.path}"), rows(2, Comment="elm:/no/such")]
    )
    rates = Rates(Path("/nowhere"))
    found = listing.rows(poll.picture(), listing.Filters(), rates)
    text = listing.grid(found, rates)
    assert "40/100" in text
    assert "3.000" in text
    assert listing.VALUES["steps"](found[0]) == 100
    assert listing.VALUES["run_ends"](found[0]) is not None
    assert found[1].run is None


def test_a_line_being_written_is_left_out(run: RunFolder) -> None:
    with run.metrics.open("a") as file:
        file.write('{"step": 41, "loss": 9')
    assert runs.progress_of(f"elm:{run.path}", ME).step == 40


def test_a_long_file_is_read_from_its_end(run: RunFolder) -> None:
    for step in range(41, 5000):
        append_jsonl(run.metrics, {"step": step, "loss": 1.0, "step_seconds": 1.0})
    assert run.metrics.stat().st_size > 2 * runs.TAIL_BYTES
    found = runs.progress_of(f"elm:{run.path}", ME)
    assert (found.step, found.step_seconds) == (4999, 1.0)


@pytest.mark.parametrize("comment", ["", "note", "elm:relative", "elm:", "elm:/a\0b"])
def test_another_comment_is_no_run(comment: str) -> None:
    assert runs.progress_of(comment, ME) is None


def test_a_pipe_a_link_and_a_strangers_file_are_not_read(run: RunFolder, tmp_path: Path) -> None:
    assert runs.progress_of(f"elm:{run.path}", "nobody") is None
    real = run.run_json.rename(tmp_path / "real.json")
    os.mkfifo(run.run_json)
    assert runs.progress_of(f"elm:{run.path}", ME) is None
    run.run_json.unlink()
    run.run_json.symlink_to(real)
    assert runs.progress_of(f"elm:{run.path}", ME) is None
    run.run_json.unlink()
    run.run_json.write_text("x" * (runs.MOST_BYTES + 1))
    assert runs.progress_of(f"elm:{run.path}", ME) is None


def test_values_of_a_wrong_type_are_unknown(run: RunFolder) -> None:
    record = json.loads(run.run_json.read_text()) | {"steps": "many", "kwh": [1]}
    run.run_json.write_text(json.dumps(record))
    found = runs.progress_of(f"elm:{run.path}", ME)
    assert (found.steps, found.kwh, found.seconds_left) == (None, None, None)


# ---- logs


def test_the_log_is_shown_escaped(fake_slurm, rows, tmp_path: Path) -> None:
    (tmp_path / "slurm-21_1.out").write_text("first\n\x1b[2Jsecond\n")
    array = {"JobArrayID": "21_1", "ArrayJobID": "21", "ArrayTaskID": "1"}
    fake_slurm.answer(
        [
            rows(23, STDOUT=f"{tmp_path}/slurm-23.out", **array),
            rows(24, STDOUT=f"{tmp_path}/slurm-%A_%a.out", **array),
            rows(25, STDOUT=f"{tmp_path}/no-%j-%u.out"),
        ]
    )
    first, second, third = poll.picture().jobs
    assert log_path(first) == log_path(second) == f"{tmp_path}/slurm-21_1.out"
    assert "\\x1b[2Jsecond" in log_tail(first)
    assert log_tail(third).endswith("no-25-anna.out cannot be read: No such file or directory")
    os.mkfifo(tmp_path / "no-25-anna.out")
    assert "is no plain file" in log_tail(third)


# ---- efficiency


def steps_text(*rows: dict[str, str]) -> str:
    lines = ("".join(row.get(field, "") + "|" for field in efficiency.FIELDS) for row in rows)
    return "\n".join(lines) + "\n"


JOB = {
    "JobIDRaw": "7",
    "JobID": "7",
    "User": "anna",
    "State": "COMPLETED",
    "ElapsedRaw": "3600",
    "TimelimitRaw": "600",
    "NCPUS": "10",
    "AllocTRES": "cpu=10,mem=10000M,node=1",
    "TotalCPU": "02:30:00",
    "JobName": "x",
}


def test_shares_and_advice() -> None:
    steps = [
        {"JobIDRaw": "7.batch", "TRESUsageInTot": "cpu=00:01:00,mem=102400K"},
        {"JobIDRaw": "7.extern", "TRESUsageInTot": "mem=99999999K"},
        {"JobIDRaw": "7.0", "MaxRSS": "1024000K", "TRESUsageInTot": ""},
    ]
    (found,) = efficiency.parse(steps_text(JOB, *steps), "|")
    assert found.cpu == pytest.approx(0.25)
    assert found.memory == pytest.approx(0.1)
    assert found.time == pytest.approx(0.1)
    assert [line.split(":")[-1].strip() for line in found.advice] == [
        "ask for 1300 MiB",
        "a shorter limit starts sooner",
        "ask for fewer",
    ]


def test_idle_gpus() -> None:
    job = JOB | {"AllocTRES": "cpu=10,gres/gpu=4,mem=10000M"}
    (found,) = efficiency.parse(steps_text(job, {"JobIDRaw": "7.0", "TRESUsageInAve": "gres/gpuutil=5"}), "|")
    assert found.gpu == pytest.approx(0.05)
    assert "its GPUs were busy 5% of the time" in "".join(found.advice)
    (unknown,) = efficiency.parse(steps_text(job), "|")
    assert unknown.gpu is None
    assert "unknown" in efficiency.text([unknown])


def test_what_slurm_ended_is_told_apart() -> None:
    (memory,) = efficiency.parse(steps_text(JOB | {"State": "OUT_OF_MEMORY"}), "|")
    (late,) = efficiency.parse(steps_text(JOB | {"State": "TIMEOUT"}), "|")
    (short,) = efficiency.parse(steps_text(JOB | {"ElapsedRaw": "5"}), "|")
    (large,) = efficiency.parse(steps_text(JOB, {"JobIDRaw": "7.0", "MaxRSS": "20480000K"}), "|")
    (waits,) = efficiency.parse(
        steps_text(JOB | {"State": "PENDING", "ElapsedRaw": "0", "AllocTRES": ""}), "|"
    )
    (runs_still,) = efficiency.parse(steps_text(JOB | {"State": "RUNNING"}), "|")
    assert "ran out of memory" in memory.advice[0]
    assert "ask for more time" in late.advice[0]
    assert "it used 20000 of 10000 MiB: ask for more" in large.advice[0]
    assert waits.advice == ["it has not run yet"]
    assert short.advice == []
    assert runs_still.cpu is None


def test_earlier_attempts_count_against_the_advice_on_time() -> None:
    """A run that requeued itself used its whole limit before; its last attempt says little."""
    earlier = JOB | {"State": "REQUEUED", "ElapsedRaw": "36000"}
    first, last = efficiency.parse(steps_text(earlier, JOB), "|")
    (other,) = efficiency.parse(steps_text(JOB), "|")
    assert (first.elapsed, last.elapsed) == (36000, 3600)
    assert any("a shorter limit" in line for line in other.advice)
    assert not any("a shorter limit" in line for line in first.advice + last.advice)


@pytest.mark.parametrize("state", ["NODE_FAIL", "BOOT_FAIL"])
def test_a_lost_nodes_attempt_is_not_advised_less(state: str) -> None:
    steps = {"JobIDRaw": "7.0", "MaxRSS": "1024K", "TRESUsageInTot": "cpu=00:00:01,mem=1024K"}
    (found,) = efficiency.parse(steps_text(JOB | {"State": state, "TotalCPU": "00:00:00"}, steps), "|")
    assert (found.cpu, found.memory) == (None, None)
    assert found.advice == ["its node was lost, and with it what it used"]


def test_a_job_whose_other_attempt_was_lost_keeps_its_memory() -> None:
    lost = JOB | {"State": "NODE_FAIL"}
    step = {"JobIDRaw": "7.0", "MaxRSS": "1024000K"}
    _, last = efficiency.parse(steps_text(lost, JOB, step), "|")
    assert not any("MiB" in line for line in last.advice)


def test_a_processor_time_of_zero_is_taken_from_the_steps() -> None:
    zero = JOB | {"TotalCPU": "00:00:00"}
    step = {"JobIDRaw": "7.0", "TRESUsageInTot": "cpu=09:00:00,mem=8000M"}
    (found,) = efficiency.parse(steps_text(zero, step), "|")
    assert found.cpu == pytest.approx(0.9)
    assert not any("cores" in line for line in found.advice)
    (nothing,) = efficiency.parse(steps_text(zero), "|")
    assert nothing.cpu is None
    assert not any("cores" in line for line in nothing.advice)


def test_a_partitions_default_time_is_the_limit(monkeypatch) -> None:
    monkeypatch.setattr(efficiency, "default_limits", lambda: {"low": 7200})
    (found,) = efficiency.parse(
        steps_text(JOB | {"Partition": "low", "TimelimitRaw": "Partition_Limit"}), "|"
    )
    assert found.limit == 7200


def test_efficiency_as_json_and_csv() -> None:
    found = efficiency.parse(steps_text(JOB | {"JobName": "=1+1"}), "|")
    (row,) = json.loads(efficiency.json_text(found))
    assert (row["cpu_share"], row["name"], row["limit"]) == (0.25, "=1+1", 36000)
    header, line = efficiency.csv_list(found).splitlines()
    assert header.startswith("id,job_id,cluster,name")
    assert "'=1+1" in line


# ---- metrics


def test_labels_are_bounded(fake_slurm, rows) -> None:
    fake_slurm.answer([rows(n, Partition=f"p{n % 80:02d}", UserName=f"u{n}") for n in range(1, 400)])
    text, failure = metrics.text()
    assert failure is None
    partitions = set(re.findall(r'partition="([^"]+)"', text))
    assert len(partitions) == metrics.MOST_PARTITIONS + 1
    assert "other" in partitions
    assert not re.search(r"job|user", " ".join(re.findall(r"\{([^}]*)\}", text)))
    counted = re.findall(r"^elm_queue_jobs\{.*\} ([\d.]+)$", text, re.M)
    assert sum(map(float, counted)) == 399


def test_the_text_is_prometheus_text(fake_slurm, rows) -> None:
    fake_slurm.answer([rows(1, Partition='a"b\\c'), rows(2, State="RUNNING")])
    text, _ = metrics.text()
    value = r"[0-9.e+-]+"
    label = r'[a-z_]+="(?:[^"\\\n]|\\.)*"'
    for line in text.splitlines():
        assert re.fullmatch(
            rf"# (HELP|TYPE) elm_queue_\w+ .+|elm_queue_\w+({{{label}(,{label})*}})? {value}", line
        )
    assert r'partition="a\"b\\c"' in text


def test_a_textfile_appears_whole(fake_slurm, rows, tmp_path: Path, monkeypatch) -> None:
    fake_slurm.answer([rows(1)])
    monkeypatch.setattr("sys.argv", ["elm-queue", "metrics", "--textfile", str(tmp_path / "elm.prom")])
    with pytest.raises(SystemExit):
        main()
    assert [file.name for file in tmp_path.glob("*elm.prom*")] == ["elm.prom"]
    assert (tmp_path / "elm.prom").stat().st_mode & 0o777 == 0o644


def test_the_port_is_on_loopback_and_serves_one_path(fake_slurm, rows) -> None:
    fake_slurm.answer([rows(1)])
    server = ThreadingHTTPServer(("127.0.0.1", 0), metrics.handler())
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(f"{base}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            assert b"elm_queue_up 1" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{base}/etc/passwd")
    finally:
        server.shutdown()
        server.server_close()
