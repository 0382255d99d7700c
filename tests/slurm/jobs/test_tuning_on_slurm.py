"""Tuning on a real Slurm: a requeue in the middle changes nothing, and preferences follow on the result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slurm.devcluster.cluster import DevCluster
from tests.slurm.jobs.test_training_on_slurm import curve, launch, lives, on_slurm, wait_done, wait_life

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_tuning_survives_usr2_bit_identically(devcluster: DevCluster, tmp_path: Path) -> None:
    launch("preprocess", tmp_path)
    launch("pretrain", tmp_path, "train.steps=20", "run.name=base")
    keys = ["source=base", "tune.steps=60", "tune.save_every=20", "parallel.tp=2", "tune.dropout=0.1"]
    launch("finetune", tmp_path, *keys, "run.name=calm")
    launch("finetune", tmp_path, *keys, *on_slurm(), "cluster.nodes=2", "run.name=stormy")
    stormy = tmp_path / "runs/stormy"
    job = json.loads((stormy / "run.json").read_text())["job_ids"][0]
    (stormy / "metrics.jsonl").touch()
    wait_life(stormy, 1, 8)
    devcluster.command("scancel", "-s", "USR2", job)
    wait_life(stormy, 2, 8)
    wait_done(stormy)
    calm = tmp_path / "runs/calm"
    assert curve(stormy) == curve(calm) and len(curve(stormy)) == 60
    assert lives(stormy) == 2
    tensors = "adapter/adapter_model.safetensors"
    assert (stormy / tensors).read_bytes() == (calm / tensors).read_bytes()

    launch("finetune", tmp_path, "source=stormy", "stage=dpo", "tune.steps=4", *on_slurm(), "run.name=dpo")
    wait_done(tmp_path / "runs/dpo")
    assert (tmp_path / "runs/dpo" / tensors).is_file()
