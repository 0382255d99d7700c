"""The report of a sweep: a row per point, scaling against the smallest, files beside the sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from conf.errors import InputError
from slurm.chains import sweep_report


def make(runs: Path, name: str, ranks: int, batch: int, speed: float, seconds: float) -> dict[str, str]:
    folder = runs / name
    folder.mkdir(parents=True)
    site = {"core_hour_rate": 1.0, "cores": 16, "gpu_hour_rate": 128.0, "budget_unit": "SBU"}
    cluster = {"nodes": ranks, "gpus_per_node": 0, "exclusive": True, "site": site}
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"cluster": cluster, "train": {"global_batch_size": batch}})
    )
    record = {
        "schema": 1,
        "state": "done",
        "step": 4,
        "world_size": ranks,
        "seconds": seconds,
        "valid_loss": 2.5,
    }
    (folder / "run.json").write_text(json.dumps(record))
    rows = [
        {"step": i, "loss": 3.0, "tokens": 10 * i, "tokens_per_second": speed if i > 2 else 1}
        for i in range(1, 5)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"dir": str(folder), "overrides": f"cluster.nodes={ranks}"}


def test_report(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    listed = [
        make(runs, "one", 1, 8, 100.0, 3600),
        make(runs, "two", 2, 8, 150.0, 1800),
        make(runs, "four", 4, 32, 400.0, 3600),
        {"dir": str(runs / "gone"), "overrides": "cluster.nodes=8"},
    ]
    file = runs / ".sweeps/pretrain-abc.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"runs": listed}))
    assert sweep_report.newest(runs) == file
    rows = sweep_report.points(file)
    assert [(r.tokens_per_second, r.efficiency, r.scaling) for r in rows] == [
        (100.0, 1.0, "base"),
        (150.0, 0.75, "strong"),
        (400.0, 1.0, "weak"),
        (None, None, "base"),
    ]
    assert [r.cost for r in rows] == [16.0, 16.0, 64.0, None] and rows[3].state == "missing"
    written = sweep_report.write_report(file)
    assert [path.suffix for path in written] == [".csv", ".md", ".png"]
    assert written[0].read_text().count("\n") == 5 and written[2].read_bytes()[:4] == b"\x89PNG"
    assert "| cluster.nodes=2 | done | 4 | 2 | 150 | 75% strong |" in written[1].read_text()


@pytest.mark.parametrize(
    "text", ["", "[1]", "{}", '{"runs": [1]}', '{"runs": [{"dir": "a"}]}', '{"runs": []}']
)
def test_a_file_that_is_no_sweep_is_a_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"bad\.json"):
        sweep_report.write_report(file)
    assert list(tmp_path.iterdir()) == [file]


def test_a_point_whose_config_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    listed = make(tmp_path / "runs", "one", 1, 8, 100.0, 3600)
    (Path(listed["dir"]) / "config.yaml").write_text("[")
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps({"runs": [listed]}))
    with pytest.raises(InputError, match=r"one/config\.yaml"):
        sweep_report.points(file)


def test_no_sweep_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no sweep"):
        sweep_report.newest(tmp_path)
