"""Module classes with the parameters Transformer Engine 2.x gives them."""

import torch


class _Module(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fp8_meta: dict = {}

    def _parameter(self, name: str, shape: tuple, dtype: torch.dtype | None, device: object) -> None:
        weight = torch.nn.Parameter(torch.empty(shape, dtype=dtype or torch.float32, device=device or "cpu"))
        self.register_parameter(name, weight)


class Linear(_Module):
    """weight [out / tp, in] (column) or [out, in / tp] (row)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        tp_size: int = 1,
        parallel_mode: str | None = None,
        params_dtype: torch.dtype | None = None,
        device: object = None,
        **_: object,
    ) -> None:
        super().__init__()
        rows = out_features // tp_size if parallel_mode == "column" else out_features
        columns = in_features // tp_size if parallel_mode == "row" else in_features
        self._parameter("weight", (rows, columns), params_dtype, device)


class LayerNormLinear(Linear):
    """The same with a norm in front: layer_norm_weight [in]."""

    def __init__(self, in_features: int, out_features: int, **more: object) -> None:
        super().__init__(in_features, out_features, **more)
        dtype, device = more.get("params_dtype"), more.get("device")
        self._parameter("layer_norm_weight", (in_features,), dtype, device)


class RMSNorm(_Module):
    """weight [hidden]; megatron-core says `hidden_size`, from 0.19 on `normalized_shape`."""

    def __init__(
        self,
        normalized_shape: int | None = None,
        eps: float = 1e-5,
        device: object = None,
        hidden_size: int | None = None,
        **_: object,
    ) -> None:
        super().__init__()
        self._parameter("weight", (normalized_shape or hidden_size,), None, device)


class LayerNorm(RMSNorm):
    """Not used by a Llama."""


class GroupedLinear(_Module):
    """Not used by a Llama."""


class DotProductAttention(_Module):
    """No parameters."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()


class ops:
    """Fused operations, not used by our spec."""

    Sequential = FusibleOperation = _Module
