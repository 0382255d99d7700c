"""Kernels for tensors on a GPU; there is none here, so that calling one is a mistake."""

from __future__ import annotations

from typing import Any


def _needs_gpu(*_: Any, **__: Any) -> Any:
    raise AssertionError("a kernel of Transformer Engine was called for a tensor on a CPU")


FusedAdam = FusedSGD = _needs_gpu
multi_tensor_applier = multi_tensor_l2norm = multi_tensor_scale = multi_tensor_scale_tensor = _needs_gpu
