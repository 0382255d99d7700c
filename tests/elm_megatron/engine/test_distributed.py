"""Process groups: one timeout for all, and what NCCL leaves behind when a collective hangs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from megatron.core import parallel_state

from conf.schema.parallel import ParallelConfig
from elm_megatron.engine import distributed
from elm_megatron.engine.data_parallel import fuse_weight_gradients
from elm_megatron.run.world import World


def test_megatrons_groups_get_our_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own default is 30 minutes, in which a job with a hung rank burns its budget."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(parallel_state, "initialize_model_parallel", lambda **options: asked.update(options))
    distributed.model_parallel(ParallelConfig(), 90.0)
    assert asked["distributed_timeout_minutes"] == 1.5
    distributed.model_parallel(ParallelConfig())
    assert asked["distributed_timeout_minutes"] == 10.0


def test_groups_are_made_when_they_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A device id would make NCCL split every group for every rank at the start."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda *_, **options: asked.update(options))
    monkeypatch.setattr(distributed, "model_parallel", lambda *_: None)
    distributed.join(World.single(tmp_path), torch.device("cuda", 0), ParallelConfig(), 60.0)
    assert asked.get("device_id") is None and asked["timeout"].total_seconds() == 60.0


def test_a_hung_collective_leaves_a_dump_in_the_logs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TORCH_NCCL_DUMP_ON_TIMEOUT", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE", "TORCH_FR_DUMP_TEMP_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_NCCL_TRACE_BUFFER_SIZE", "50")  # the user's own
    monkeypatch.setenv("TORCH_FR_BUFFER_SIZE", "50")
    world = World.single(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", dict(os.environ))
        distributed.record_collectives(tmp_path / "logs", world)
        assert os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "1"
        assert os.environ["TORCH_NCCL_DEBUG_INFO_TEMP_FILE"].startswith(str(tmp_path / "logs" / "nccl-"))
        assert os.environ["TORCH_NCCL_TRACE_BUFFER_SIZE"] == "50"


def test_weight_gradients_are_added_in_the_product_where_a_layer_can() -> None:
    """Transformer Engine's linear layers can, without apex; other layers are left alone."""
    able, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    able.fuse_wgrad_accumulation = False
    fuse_weight_gradients(torch.nn.Sequential(able, other))
    assert able.fuse_wgrad_accumulation and not hasattr(other, "fuse_wgrad_accumulation")
