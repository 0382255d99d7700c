"""Slurm's text becomes the same figures whichever release wrote it; see the head of each file in shapes/."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from slurm.tracker import command, efficiency, fields, nodes, sacct, squeue, why

SHAPES = Path(__file__).parent / "shapes"
SEPARATOR = "<|>"


def shape(name: str) -> str:
    """The text of a file without its head of comment lines."""
    lines = (SHAPES / f"{name}.txt").read_text().split("\n")
    while lines[0].startswith("# "):
        lines.pop(0)
    return "\n".join(lines)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def jobs(release: str) -> dict[str, squeue.Job]:
    return {job.shown_id: job for job in squeue.parse(shape(f"squeue-{release}"), SEPARATOR)}


def test_squeue_of_22_05_as_recorded() -> None:
    found = jobs("22.05")
    assert len(found) == 9
    array = found["27_[3-9%2]"]
    assert (array.tasks, array.array_id, array.gpus, array.reason) == (7, 27, 1, "JobArrayTaskLimit")
    assert array.name == "<script>alert(1)</script>|a,b"
    assert (found["27_1"].job_id, found["27_1"].array_id, found["27_1"].state) == (34, 27, "RUNNING")
    wide = found["29"]
    assert (wide.gpus, wide.nodes, wide.limit, wide.comment) == (16, 4, 86400, "elm:/runs/tiny")
    assert wide.start == at("2026-11-22T22:23:02")
    assert found["28"].name == "\x1b[31mred\x1b[0m\nnew line\ttab é"
    assert found["33"].dependency == "afterok:32(unfulfilled)"
    assert found["31"].eligible == at("2026-11-22T23:13:02")
    assert found["30"].eligible is None, "a held job"


def test_squeue_of_23_11_as_composed() -> None:
    found = jobs("23.11")
    running = found["501"]
    assert (running.gpus, running.cpus, running.memory_mib) == (8, 128, 1440 * 1024)
    assert (running.elapsed, running.limit, running.restarts) == (8130, 86400, 1)
    assert running.priority == 4294901000
    assert running.waited(0) == 5400
    waiting = found["502"]
    assert (waiting.limit, waiting.nodes, waiting.start) == (None, 4, None)
    assert waiting.waited(at("2026-03-01T10:01:00")) == 60
    assert found["503_[0-99%10]"].tasks == 100


def test_squeue_of_24_05_as_composed() -> None:
    found = jobs("24.05")
    assert found["7001"].gpus == 8, "only typed GPUs are listed"
    assert found["7001"].dependency == found["7001"].reservation == ""
    assert found["7002+0"].reason == "QOSMaxGRESPerUser"


def test_squeue_of_25_05_as_composed_counts_gpus_that_are_no_tracked_tres() -> None:
    found = jobs("25.05")
    assert {job_id: job.gpus for job_id, job in found.items()} == {"9101": 8, "9102": 6, "9103": 4}
    assert {job.cluster for job in found.values()} == {"alice"}
    assert found["9103"].pending
    assert why.family_of(found["9103"].reason, found["9103"].state).key == "special_exit"


def test_efficiency_of_25_05_as_composed(monkeypatch) -> None:
    monkeypatch.setattr(efficiency, "default_limits", lambda: {"gpu": 4 * 3600})
    train, lost = efficiency.parse(shape("eff-25.05"), SEPARATOR)
    assert train.cpu == pytest.approx((56 * 3600 + 4) / (7200 * 32))
    assert train.memory == pytest.approx(150 / 180)
    assert (train.gpus, train.gpu, train.limit) == (2, 0.9, 14400)
    assert train.advice == []
    assert (lost.cpu, lost.memory) == (None, None)
    assert lost.advice == ["its node was lost, and with it what it used"]


def test_sacct_of_22_05_as_recorded() -> None:
    attempts = sacct.parse(shape("sacct-22.05"), SEPARATOR)
    by_id = {attempt.shown_id: attempt for attempt in attempts}
    assert len(attempts) == 28
    assert by_id["21_3"].state == "CANCELLED"
    assert by_id["29"].start is None
    assert by_id["29"].gpus == 16, "as asked for, since nothing is allocated yet"
    assert by_id["28"].name == "\x1b[31mred\x1b[0m\nnew line\ttab é"
    assert (by_id["20"].elapsed, by_id["20"].limit, by_id["20"].gpus) == (21, 3600, 12)
    assert by_id["19"].waited == 1


def test_sacct_of_23_11_as_composed() -> None:
    first, second, cancelled = sacct.parse(shape("sacct-23.11"), SEPARATOR)
    assert (first.job_id, first.state, second.state) == (second.job_id, "PREEMPTED", "RUNNING")
    assert (first.gpus, first.energy_joules, first.waited) == (8, 25_200_000, 10)
    assert (second.end, second.energy_joules, second.waited) == (None, None, 5280)
    assert (cancelled.state, cancelled.start, cancelled.waited, cancelled.limit) == (
        "CANCELLED",
        None,
        None,
        None,
    )
    assert cancelled.gpus == 16


def test_sacct_of_24_05_as_composed() -> None:
    memory, node = sacct.parse(shape("sacct-24.05"), SEPARATOR)
    assert (memory.gpus, memory.limit, memory.state) == (8, None, "OUT_OF_MEMORY")
    assert (node.elapsed, node.state, node.finished) == (1800, "NODE_FAIL", True)


def test_sinfo_of_22_05_as_recorded() -> None:
    found = nodes.parse(shape("sinfo-22.05"), SEPARATOR)
    assert [node.name for node in found] == ["n1", "n2", "n3", "n4"]
    assert found[0].partitions == ("low", "high")
    assert found[0].free == {"cpus": 13, "gpus": 2, "memory": 15700}
    assert found[1].available, "planned is free for others"


@pytest.mark.parametrize("state", ["down", "drained", "draining@", "idle*", "down*", "maint", "fail"])
def test_a_node_out_of_service_has_nothing_free(state: str) -> None:
    node = nodes.Node("n1", ("low",), state, 16, 0, 4, 0, 1000, 0, "")
    assert not node.available
    assert node.free == {"cpus": 0, "gpus": 0, "memory": 0}


def test_a_name_cannot_forge_a_field() -> None:
    # The separator is new for each call, so a name can only hold an old one.
    separator = command.separator()
    assert separator != command.separator()
    row = ["x"] * len(sacct.FIELDS)
    row[sacct.FIELDS.index("Submit")] = "2026-03-01T08:00:00"
    row[-1] = f"name{command.separator()}\nother|line"
    text = "".join(field + separator for field in row) + "\n"
    first, second = sacct.parse(text * 2, separator)
    assert first.name == second.name == row[-1]


def test_a_cut_off_record_is_left_out() -> None:
    text = shape("squeue-23.11")
    assert len(squeue.parse(text[:-40], SEPARATOR)) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1-02:03:04", 93784),
        ("02:03:04", 7384),
        ("3:04", 184),
        ("00:12.345", 12),
        ("UNLIMITED", None),
        ("N/A", None),
        ("INVALID", None),
        ("nonsense", None),
    ],
)
def test_seconds(text: str, expected: int | None) -> None:
    assert fields.seconds(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpu:h100:4", 4),
        ("gres:gpu:2", 2),
        ("gres/gpu:2", 2),
        ("gpu", 1),
        ("gpu:a100:2(IDX:0-1),gpu:t4:1", 3),
        ("N/A", 0),
        ("nic:2", 0),
        ("gres/gpu=3", 3),
    ],
)
def test_gpus_of_gres(text: str, expected: int) -> None:
    assert fields.gpus_of_gres(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("100M", 100), ("1.5G", 1536), ("2048K", 2), ("2T", 2 << 20), ("7", 7), ("", None)]
)
def test_mebibytes(text: str, expected: int | None) -> None:
    assert fields.mebibytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3-5%2", 3), ("1,7-9", 4), ("0-8:4", 3), ("N/A", 1), ("5", 1), ("0-9999", 10000)],
)
def test_array_tasks(text: str, expected: int) -> None:
    assert fields.array_tasks(text) == expected


def test_host_names() -> None:
    assert fields.host_names("n[1-3,07-08],gpu01") == ["n1", "n2", "n3", "n07", "n08", "gpu01"]
    assert fields.host_names("(null)") == []
    assert fields.host_names("x[1-99999999]") == ["x[1-99999999]"]
