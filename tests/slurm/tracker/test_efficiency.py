"""Efficiency gives advice where its figures are known, and none where they are not."""

from __future__ import annotations

import json

import pytest

from slurm.tracker import efficiency


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
