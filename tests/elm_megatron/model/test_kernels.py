"""Which kernel serves what: by what a package can do, never by its name."""

from __future__ import annotations

import importlib.metadata
import sys
from types import ModuleType

import pytest
import torch

from conf.errors import InputError
from elm_megatron.model import kernels


@pytest.fixture
def apex(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package of the name apex that is not NVIDIA's."""
    package, optimizers = ModuleType("apex"), ModuleType("apex.optimizers")
    package.__spec__ = kernels.importlib.util.spec_from_loader("apex", None)
    monkeypatch.setitem(sys.modules, "apex", package)
    monkeypatch.setitem(sys.modules, "apex.optimizers", optimizers)
    return optimizers


def providers(device: str) -> dict[str, str]:
    """Operation → who serves it."""
    return {kernel.operation: kernel.provider for kernel in kernels.serving(device)}


def test_apex_counts_only_with_its_fused_adam(apex: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "has_transformer_engine", lambda: False)
    assert providers("gpu")["AdamW"] == "torch AdamW"
    assert providers("gpu")["apex"] == "impostor"
    apex.FusedAdam = object
    assert providers("gpu")["AdamW"] == "apex FusedAdam" and "apex" not in providers("gpu")
    assert providers("cpu")["AdamW"] == "torch AdamW"


def test_transformer_engine_serves_what_it_has_attention_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    monkeypatch.setattr(kernels, "has_transformer_engine", lambda: True)
    assert [kernels.uses_transformer_engine(gpu, p) for p in ("fp32", "bf16", "fp8")] == [False, True, True]
    assert not kernels.uses_transformer_engine(cpu, "bf16")
    monkeypatch.setattr(kernels, "has_transformer_engine", lambda: False)
    assert not kernels.uses_transformer_engine(gpu, "bf16")


def test_fp8_is_refused_where_it_would_be_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 0)
    monkeypatch.setattr(kernels, "has_transformer_engine", lambda: False)
    with pytest.raises(InputError, match=r"train\.precision=fp8: Transformer Engine is not installed"):
        kernels.require_fp8(device)
    monkeypatch.setattr(kernels, "has_transformer_engine", lambda: True)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.1.0")
    monkeypatch.setattr(kernels, "is_te_min_version", lambda least: least <= "2.1.0")
    with pytest.raises(InputError, match=r"needs Transformer Engine 2\.2, found 2\.1\.0; allowed here"):
        kernels.require_fp8(device)
    monkeypatch.setattr(kernels, "is_te_min_version", lambda _: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    with pytest.raises(InputError, match="NVIDIA A100 has none; allowed here are fp32 and bf16"):
        kernels.require_fp8(device)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    kernels.require_fp8(device)
