"""A stand-in for CUDA, so that unmodified megatron-core runs on a CPU over gloo.

megatron-core names the device "cuda" in many places. `install()` answers those names on the CPU: tensor
factories map a CUDA device to the CPU, `.cuda()` is the identity, streams and events do nothing (a CPU
computes in order), and the CUDA generator is torch's own. It patches functions rather than pushing a
`TorchFunctionMode`, because a mode is not active in backward passes and costs every operation.

It is installed only where the run asked for the CPU, never beside a GPU in use.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo

_FACTORIES = [
    *("tensor", "as_tensor", "empty", "zeros", "ones", "full", "arange", "rand", "randn", "randint"),
    *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
    *("empty_strided", "linspace", "eye"),
]
_installed = False
_device = "cpu"


class _Stream:
    """A CUDA stream on a machine that computes in order."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.cuda_stream = 0

    def wait_stream(self, stream: Any) -> None:
        """Nothing runs beside us."""

    def wait_event(self, event: Any) -> None:
        """Every event has happened."""

    def synchronize(self) -> None:
        """All work is done when its call returns."""

    def record_event(self, event: Any = None) -> _Event:
        """An event that has happened."""
        return event or _Event()

    def query(self) -> bool:
        """All work is done."""
        return True


class _Event(_Stream):
    """A CUDA event on a machine that computes in order."""

    def record(self, stream: Any = None) -> None:
        """It has happened."""

    def wait(self, stream: Any = None) -> None:
        """It has happened."""


def _is_cuda(device: Any) -> bool:
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, int) or (isinstance(device, str) and device.startswith("cuda"))


def _on_cpu(factory: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The same tensor factory with a CUDA device replaced by the CPU."""

    @functools.wraps(factory)
    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        if "device" in kwargs and _is_cuda(kwargs["device"]):
            kwargs["device"] = _device
        kwargs.pop("pin_memory", None)  # there is no device to copy to
        return factory(*args, **kwargs)

    return call


def _tensor_to(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(original)
    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        args = tuple(_device if not isinstance(a, (bool, torch.dtype)) and _is_cuda(a) else a for a in args)
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = _device
        return original(self, *args, **kwargs)

    return to


def _tensor_type(original: Callable[..., Any]) -> Callable[..., Any]:
    """The distributed optimizer decides by the string 'torch.cuda.FloatTensor'."""

    @functools.wraps(original)
    def type_(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            return original(self, *args, **kwargs)
        return original(self).replace("torch.", "torch.cuda.", 1)

    return type_


def _identity(self: Any, *args: Any, **kwargs: Any) -> Any:
    return self


def install(device: str = "cpu") -> None:
    """Put the stand-in in place, once per process.

    Args:
        device: what "cuda" stands for: "cpu", or "meta" to build a model without memory.
    """
    global _installed, _device
    _device = device
    if _installed:
        return
    _installed = True
    for name in _FACTORIES:
        setattr(torch, name, _on_cpu(getattr(torch, name)))
    torch.Tensor.to = _tensor_to(torch.Tensor.to)
    torch.Tensor.type = _tensor_type(torch.Tensor.type)
    torch.Tensor.cuda = _identity
    torch.nn.Module.cuda = _identity
    # megatron-core decorates small functions with torch.compile; a laptop may have no compiler.
    torch._dynamo.config.disable = True
    _answer_torch_cuda()
    _answer_megatron()


def _answer_torch_cuda() -> None:
    cuda = torch.cuda
    stream = _Stream()
    cuda.current_device = lambda: torch.device(_device)
    cuda.Stream, cuda.Event = _Stream, _Event
    cuda.current_stream = cuda.default_stream = lambda device=None: stream
    cuda.stream = lambda stream: contextlib.nullcontext()
    cuda.is_current_stream_capturing = lambda: False
    for nothing in ("synchronize", "set_device", "empty_cache"):
        setattr(cuda, nothing, lambda *args, **kwargs: None)
    for owner in (cuda, cuda.random):
        owner.manual_seed = owner.manual_seed_all = lambda seed: torch.default_generator.manual_seed(seed)
        owner.get_rng_state = lambda device="cpu": torch.get_rng_state()
        owner.set_rng_state = lambda state, device="cpu": torch.set_rng_state(state)


def _answer_megatron() -> None:
    from megatron.core.tensor_parallel import random

    random._get_cuda_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    random._set_cuda_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)
    _take_torch_optimizers()


def _take_torch_optimizers() -> None:
    """megatron-core takes Transformer Engine's or apex's kernels where those are installed, GPU or not."""
    from megatron.core import optimizer, utils
    from megatron.core.optimizer import clip_grads
    from megatron.core.optimizer import optimizer as mixed_precision

    optimizer.Adam, optimizer.USING_PYTORCH_OPTIMIZER = torch.optim.AdamW, True
    for module in (clip_grads, mixed_precision):
        module.multi_tensor_applier = utils.local_multi_tensor_applier
        module.multi_tensor_scale_impl = utils.local_multi_tensor_scale
    clip_grads.l2_norm_impl = utils.local_multi_tensor_l2_norm
