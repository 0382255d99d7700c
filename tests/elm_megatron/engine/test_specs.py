"""Both layer specs hold the same tensors, so that a checkpoint of one loads into the other.

Transformer Engine itself needs a GPU; a stand-in gives megatron-core its names and shapes
(tests/stand_ins/transformer_engine). The real one is trained with in test_gpu.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from elm_megatron.run.folder import RunFolder

ROOT = Path(__file__).resolve().parents[3]


def tensors(kind: str, path: str) -> dict:
    """What layer_names prints."""
    command = [sys.executable, "-m", "tests.elm_megatron.engine.layer_names", kind]
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_transformer_engine_and_torch_specs_name_the_same_tensors() -> None:
    with_torch = tensors("torch", str(ROOT))
    with_engine = tensors("te", f"{ROOT / 'tests' / 'stand_ins'}{os.pathsep}{ROOT}")
    assert with_engine == with_torch
    names = {box[0] for box in with_torch["1"]}
    assert "decoder.layers.self_attention.linear_qkv.layer_norm_weight.3" in names
    assert len(with_torch["2"]) == len(with_torch["1"])


def test_a_cpu_run_beside_transformer_engine_uses_none_of_it(small_data: Path, tmp_path: Path) -> None:
    """As in the container on a node without a GPU: megatron-core's optimizer goes by what is installed."""
    keys = [f"data.dir={small_data}", f"run.dir={tmp_path / 'run'}", "train.steps=2", "train.warmup_steps=1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "stand_ins")}
    command = [sys.executable, str(ROOT / "launch" / "pretrain.py"), *keys]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert RunFolder(tmp_path / "run").read()["state"] == "done"
