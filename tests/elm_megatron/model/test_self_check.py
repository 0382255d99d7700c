"""Every kernel is compared with torch before the first step; a wrong one is refused and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from megatron.core import optimizer
from megatron.core.models.common.language_module import language_module

from elm_megatron.model import cross_entropy, kernels, self_check, torch_layers
from elm_megatron.model.kernel_formulas import CHECKS, Bench
from elm_megatron.model.self_check import WrongKernel
from elm_megatron.model.torch_attention import TorchCoreAttention
from elm_megatron.run.folder import RunFolder
from tests.elm_megatron.configs import pretrain_config
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool

CPU = torch.device("cpu")
Fault = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def bench(dtype: torch.dtype = torch.float32, fused_loss: bool = False, z_loss: float = 0.0) -> Bench:
    """What a run on torch's layers gives the checks, without process groups."""
    config: Any = SimpleNamespace(
        params_dtype=dtype,
        layernorm_epsilon=1e-12,
        num_attention_heads=4,
        num_query_groups=2,
        kv_channels=16,
        tensor_model_parallel_size=1,
        context_parallel_size=1,
        attention_dropout=0.0,
        use_cpu_initialization=True,
        sequence_parallel=False,
        cross_entropy_loss_fusion=fused_loss,
        cross_entropy_fusion_impl="te",
    )
    attention = TorchCoreAttention(config, 1, None, "self")
    return Bench(config, CPU, attention, False, fused_loss, z_loss, False)


def checked(one: Bench) -> list[kernels.Kernel]:
    return self_check.check(kernels.serving("cpu", False, one.fused_loss), one)


@pytest.mark.parametrize("dtype", self_check.TOLERANCE)
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_those_of_a_cpu_are_right(dtype: torch.dtype, z_loss: float) -> None:
    before = torch.get_rng_state()
    assert {kernel.operation for kernel in checked(bench(dtype, z_loss=z_loss)) if kernel.checked} == set(
        CHECKS
    )
    assert torch.equal(before, torch.get_rng_state())


class _Loss(torch.autograd.Function):
    """A cross entropy with the right value and a given fault in its gradient, as Transformer Engine's had."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor, fault: Fault) -> torch.Tensor:
        ctx.save_for_backward(logits, labels)
        ctx.fault = fault
        flat, ids = logits.flatten(0, 1).float(), labels.flatten()
        return torch.nn.functional.cross_entropy(flat, ids, reduction="none").view(labels.shape)

    @staticmethod
    def backward(ctx: Any, by_losses: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        logits, labels = ctx.saved_tensors
        slope = logits.float().softmax(-1)
        slope.scatter_add_(-1, labels[..., None], torch.full_like(labels[..., None], -1.0, dtype=torch.float))
        return ctx.fault(slope, by_losses).to(logits.dtype), None, None


FAULTS: dict[str, Fault] = {
    "divided by the rows": lambda slope, by: slope * by[..., None] / by.numel(),
    "the first row's factor for all": lambda slope, by: slope * by.flatten()[0],
    "permuted over the rows": lambda slope, by: slope * by.t().reshape(by.shape)[..., None],
    "twice as large": lambda slope, by: slope * by[..., None] * 2.0,
    "not a number": lambda slope, by: slope * by[..., None] * float("nan"),
}


def take_loss(monkeypatch: pytest.MonkeyPatch, fault: Callable[..., torch.Tensor]) -> None:
    """Let megatron-core's models call this cross entropy as Transformer Engine's."""
    monkeypatch.setattr(
        language_module,
        "te_parallel_cross_entropy",
        lambda logits, labels, *_: _Loss.apply(logits, labels, fault),
    )


@pytest.mark.parametrize("dtype", self_check.TOLERANCE)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_cross_entropy_with_wrong_gradients_is_refused(
    fault: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_loss(monkeypatch, FAULTS[fault])
    named = "vocabulary cross entropy by Transformer Engine"
    with pytest.raises(WrongKernel, match=rf"{named}.*: the gradient by the logits is wrong"):
        self_check.check(kernels.serving("gpu", True, True)[4:5], bench(dtype, fused_loss=True))


def test_one_with_right_gradients_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    take_loss(monkeypatch, lambda slope, by: slope * by[..., None])
    (kernel,) = self_check.check(kernels.serving("gpu", True, True)[4:5], bench(fused_loss=True))
    assert kernel.checked


def test_one_that_cannot_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_backend(*_: Any) -> Any:
        raise ValueError("no backend for these inputs")

    monkeypatch.setattr(language_module, "te_parallel_cross_entropy", no_backend)
    with pytest.raises(WrongKernel, match="cannot run on cpu: ValueError: no backend"):
        self_check.check(kernels.serving("gpu", True, True)[4:5], bench(fused_loss=True))


def scaled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The same values with a gradient a tenth too large."""

    def wrong(*arguments: Any, **options: Any) -> torch.Tensor:
        out = function(*arguments, **options)
        return out * 1.1 - (out * 0.1).detach()

    return wrong


@pytest.mark.parametrize(
    ("owner", "name", "operation"),
    [
        (torch_layers.RMSNorm, "forward", "norm and linear"),
        (torch_layers, "rotate", "rotary positions"),
        (torch_layers, "swiglu", "SwiGLU"),
        (TorchCoreAttention, "forward", "attention"),
        (cross_entropy, "linear_cross_entropy", "vocabulary cross entropy"),
    ],
)
def test_every_operation_is_compared(
    owner: Any, name: str, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, scaled(getattr(owner, name)))
    with pytest.raises(WrongKernel, match=rf"^{operation} by .*: the gradient by .* is wrong, 1\.1 times"):
        checked(bench())


def test_an_optimizer_of_another_decay_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a FusedAdam in its L2 mode: the decay is not decoupled."""
    monkeypatch.setattr(optimizer, "Adam", torch.optim.Adam)
    with pytest.raises(WrongKernel, match="AdamW by torch AdamW: the update is wrong"):
        checked(bench())


def test_products_in_tf32_are_no_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's images set an override; the product of rounded inputs stands in for a GPU's."""
    original = torch.Tensor.__matmul__

    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if a.dtype != torch.float32:
            return original(a, b)
        return original(a.bfloat16().float(), b.bfloat16().float())

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    with pytest.raises(WrongKernel, match=r"fp32 matrix product by torch: .*TF32_CUBLAS_OVERRIDE"):
        checked(bench())


def test_a_run_refuses_it_before_the_first_step(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    config = pretrain_config(tmp_path / "wrong", small_data, 2, tp=2)
    run = rank_functions.folder(config)
    said = ranks.run(2, rank_functions.train_with_wrong_kernel, config=config)
    assert all(one.startswith("vocabulary cross entropy by this suite") for one in said), said
    assert "0.125 times as large as torch's at a cosine of 1.000" in said[0]
    assert run.read_metrics() == []


def test_a_run_records_its_kernels(ranks: RankPool, small_data: Path, tmp_path: Path) -> None:
    config = pretrain_config(tmp_path / "run", small_data, 1, steps=1, reset_attention_mask=True)
    run: RunFolder = rank_functions.folder(config)
    assert ranks.run(1, rank_functions.train, config=config) == ["done"]
    found = run.read()["kernels"]
    assert found["attention"] == {"provider": "torch SDPA", "checked": True}
    assert all(found[operation]["checked"] for operation in CHECKS)
