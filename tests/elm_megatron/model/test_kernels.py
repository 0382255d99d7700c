"""Which kernel serves what: by what a package can do, never by its name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from megatron.core.models.common.embeddings import rope_utils

from conf.errors import InputError
from conf.schema.parallel import ParallelConfig
from elm_megatron.model import kernels, llama, te_import
from tests.elm_megatron.configs import small_model

ROOT = Path(__file__).resolve().parents[3]
GPU = torch.device("cuda", 0)


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
    gpu, cpu = GPU, torch.device("cpu")
    monkeypatch.setattr(kernels, "has_transformer_engine", lambda: True)
    assert [kernels.uses_transformer_engine(gpu, p) for p in ("fp32", "bf16", "fp8")] == [False, True, True]
    assert not kernels.uses_transformer_engine(cpu, "bf16")
    monkeypatch.setattr(kernels, "has_transformer_engine", lambda: False)
    assert not kernels.uses_transformer_engine(gpu, "bf16")


@pytest.mark.parametrize(
    ("capability", "flash_attn", "taken"),
    [((8, 0), False, False), ((8, 0), True, True), ((9, 0), False, True)],
)
def test_packed_documents_take_it_where_it_can_attend_them(
    capability: tuple[int, int], flash_attn: bool, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuDNN's attention for sequences of several lengths begins with the H100; an A100 has flash-attn's."""
    monkeypatch.setattr(kernels, "has_transformer_engine", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: flash_attn or None)
    assert kernels.uses_transformer_engine(GPU, "bf16", packed=True) is taken
    assert kernels.uses_transformer_engine(GPU, "bf16")


@pytest.mark.parametrize(
    ("version", "provider"), [("2.4.0", "this suite"), ("2.10.0", "this suite"), ("2.18.0", "this suite"),
    ("2.19.0", "Transformer Engine"),
     ("2.20.2", "Transformer Engine")],
)  # fmt: skip
def test_its_cross_entropy_serves_from_the_first_right_version_on(
    version: str, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "has_transformer_engine", lambda: True)
    monkeypatch.setattr(te_import, "version", lambda: version)
    monkeypatch.setattr(rope_utils, "fused_apply_rotary_pos_emb", lambda: None)
    assert providers("gpu")["vocabulary cross entropy"].startswith(provider)
    config = llama.transformer_config(small_model(), ParallelConfig(), "bf16", transformer_engine=True)
    assert config.cross_entropy_loss_fusion == (provider == "Transformer Engine") and config.apply_rope_fusion


def test_a_gpu_without_it_is_told_the_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "has_transformer_engine", lambda: False)
    (note,) = kernels.notes("gpu", kernels.serving("gpu"))
    assert note.startswith("Transformer Engine is not installed: torch's layers serve, about a third slower")
    assert kernels.notes("cpu", kernels.serving("cpu")) == []
    monkeypatch.setattr(kernels, "has_transformer_engine", lambda: True)
    monkeypatch.setattr(te_import, "version", lambda: "2.20.2")
    assert kernels.notes("gpu", kernels.serving("gpu")) == []
    assert kernels.notes("gpu", kernels.serving("gpu", False, False)) == []  # an adapter's, by choice


def test_the_command_checks_this_machines_kernels() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "elm_megatron.model.kernels"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if " checked " in line]) == 6


def test_fp8_is_refused_where_it_would_be_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    device = GPU
    monkeypatch.setattr(kernels, "has_transformer_engine", lambda: False)
    with pytest.raises(InputError, match=r"train\.precision=fp8: Transformer Engine is not installed"):
        kernels.require_fp8(device)
    monkeypatch.setattr(kernels, "has_transformer_engine", lambda: True)
    monkeypatch.setattr(te_import, "version", lambda: "2.1.0")
    with pytest.raises(InputError, match=r"needs Transformer Engine 2\.2, found 2\.1\.0; allowed here"):
        kernels.require_fp8(device)
    monkeypatch.setattr(te_import, "version", lambda: "2.20.2")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    with pytest.raises(InputError, match="NVIDIA A100 has none; allowed here are fp32 and bf16"):
        kernels.require_fp8(device)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    kernels.require_fp8(device)
