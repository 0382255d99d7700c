"""Norm, rotary positions and SwiGLU beside the same formulas written out for autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch

from elm_megatron.model import device as devices
from elm_megatron.model import torch_layers
from elm_megatron.model.packed import PackedRow, ends_of
from elm_megatron.model.torch_layers import RMSNorm, rotate, swiglu

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def values_and_gradients(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, slope: torch.Tensor
) -> list[torch.Tensor]:
    leaf = x.clone().requires_grad_()
    out = function(leaf)
    (out.float() * slope).sum().backward()
    assert out.dtype == x.dtype
    return [out.detach(), leaf.grad]


def agree(ours: list[torch.Tensor], theirs: list[torch.Tensor], dtype: torch.dtype) -> None:
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            mine.float(), reference.float(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
        )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_norm(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    config = SimpleNamespace(use_cpu_initialization=True, params_dtype=dtype, sequence_parallel=True)
    norm = RMSNorm(config, 24, eps=1e-3)
    norm.weight.data.normal_()
    assert norm.weight.sequence_parallel
    x, slope = (torch.randn(5, 3, 24) * 0.1).to(dtype), torch.randn(5, 3, 24)
    weight = norm.weight.detach().clone().requires_grad_()

    def written_out(x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return (wide / (wide.square().mean(-1, keepdim=True) + 1e-3).sqrt()).to(x.dtype) * weight

    agree(values_and_gradients(norm, x, slope), values_and_gradients(written_out, x, slope), dtype)
    scale = weight.grad.abs().max()
    agree([norm.weight.grad / scale], [weight.grad / scale], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rotation(dtype: torch.dtype) -> None:
    """Also of queries that are a slice of a larger tensor, as those of a fused projection are."""
    torch.manual_seed(2)
    angles = torch.outer(torch.arange(7.0), torch.tensor([1.0, 0.3, 0.01]))
    angles = torch.cat([angles, angles], -1)[:, None, None, :]
    x, slope = torch.randn(7, 2, 3, 12).to(dtype), torch.randn(7, 2, 3, 6)

    def written_out(x: torch.Tensor) -> torch.Tensor:
        first, second = x[..., :6].chunk(2, -1)
        turned = torch.cat([-second, first], -1)
        return x[..., :6] * angles.cos().to(x.dtype) + turned * angles.sin().to(x.dtype)

    ours = values_and_gradients(lambda x: rotate(x[..., :6], angles), x, slope)
    agree(ours, values_and_gradients(written_out, x, slope), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_swiglu(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    x, slope = torch.randn(4, 2, 10).to(dtype), torch.randn(4, 2, 5)

    def written_out(x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, -1)
        return gate * torch.sigmoid(gate) * up

    agree(values_and_gradients(swiglu, x, slope), values_and_gradients(written_out, x, slope), dtype)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The forms that a GPU takes, computed here: one fused norm, functions that are compiled there."""
    monkeypatch.setattr(devices, "is_gpu", lambda device: True)
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_gpus_forms_compute_the_same(dtype: torch.dtype) -> None:
    test_norm(dtype)
    test_rotation(dtype)
    test_swiglu(dtype)


def test_packed_tokens_are_turned_by_their_place_in_their_sequence() -> None:
    """As megatron-core turns each sequence by itself, which reads the ends from the device."""
    row = PackedRow.of([0, 5, 20, 32], torch.device("cpu"))
    half = torch.outer(torch.arange(row.max_seqlen_q), torch.tensor([1.0, 0.3, 0.01]))
    table = torch.cat([half, half], -1)[:, None, None, :]
    x = torch.randn(32, 1, 2, 6)
    apart = [rotate(part, table[: len(part)]) for part in x.split([5, 15, 12])]
    torch.testing.assert_close(rotate(x, row.angles(table)), torch.cat(apart))
    assert row.angles(table) is row.angles(table) and ends_of(row) == [0, 5, 20, 32]


def test_cosines_are_taken_once_for_all_layers() -> None:
    half = torch.outer(torch.arange(4.0), torch.tensor([1.0, 0.3]))
    angles = torch.cat([half, half], -1)[:, None, None, :]
    first = torch_layers._turns.of(angles, torch.float32)
    assert torch_layers._turns.of(angles, torch.float32)[0] is first[0]
    assert torch_layers._turns.of(angles.clone(), torch.float32)[0] is not first[0]
