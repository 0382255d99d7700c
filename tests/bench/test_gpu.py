"""The GPU bench runs, on the CPU: it must not go stale between two times that a GPU is at hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_part_runs_small_on_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests" / "bench" / "gpu.py"), "--small", "--out", str(tmp_path)]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(scratch)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "gpu.md").read_text()
    assert table in done.stdout and "failed" not in table
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["lifecycle"]["resume"] == "ok, bit-identical"
    assert set(found) == {"kernels", "paths cpu", "paths gpu", "large torch mb4", "lifecycle"}
    assert all(0.9 < row["ratio"] < 1.1 for row in found["kernels"]["cross entropy"].values())
    assert not list(scratch.glob("elm-gpu-*"))
