"""A layer's element-wise parts on torch, in few passes over memory: norm, rotary positions, SwiGLU.

Transformer Engine fuses them on a GPU. Without it each pass is a kernel of its own. On a CPU they cost as
much as the matrix products between them. On a GPU torch's fused norm and compiled functions take their place.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.fusions.fused_bias_swiglu import bias_swiglu_impl
from megatron.core.jit import jit_fuser
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.mlp import MLP
from megatron.core.transformer.transformer_config import TransformerConfig

from elm_megatron.model import device as devices
from elm_megatron.model.packed import PackedRow


class _NormFunction(torch.autograd.Function):
    """x / rms(x) · weight, keeping only x and 1/rms for backward; torch's own keeps x / rms(x) too."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.size(-1)).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (wide * inverse).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        normed = x.float() * inverse
        wide, scale = gradient.float(), weight.float()
        along = wide * normed
        of_weight = along.flatten(0, -2).sum(0).to(weight.dtype)
        mean = torch.matmul(along, scale).div_(x.size(-1)).unsqueeze(-1)
        of_x = (wide * scale).addcmul_(normed, mean, value=-1.0).mul_(inverse)
        return of_x.to(x.dtype), of_weight, None


class RMSNorm(torch.nn.Module):
    """Root-mean-square norm that allows sequence parallelism.

    mcore's torch wrapper refuses sequence parallelism; its gradient only needs the weight to be marked,
    so that `finalize_model_grads` sums it over the tensor-parallel ranks.

    Args:
        config: gives `sequence_parallel` and `params_dtype`.
        hidden_size: channels of the last axis.
        eps: added to the mean square.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: object):
        super().__init__()
        self.eps = eps
        device = "cpu" if config.use_cpu_initialization else devices.current()
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype, device=device))
        self.weight.sequence_parallel = config.sequence_parallel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., hidden] → the same shape and dtype; the mean square is taken in fp32."""
        if devices.is_gpu(x.device):  # one kernel; the few passes below are for a CPU
            return torch.nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.eps)
        return _NormFunction.apply(x, self.weight, self.eps)


class _Rotation(torch.autograd.Function):
    """Turns channel i and channel d/2 + i by one angle; backward turns back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(gradient, cos, -sin), None, None


@jit_fuser
def _rotated_fused(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    if devices.is_gpu(x.device):
        return _rotated_fused(x, cos, sin)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (a, b), (first, second) = x.chunk(2, -1), out.chunk(2, -1)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-1.0)
    torch.mul(b, cos, out=second).addcmul_(a, sin)
    return out


def rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotary positions as Llama has them (halves, not neighbours).

    Args:
        x: [s, b, heads, d].
        angles: fp32 [s, 1, 1, d], both halves alike, as megatron-core's RotaryEmbedding gives them.

    Returns:
        The shape and dtype of x.
    """
    return _Rotation.apply(x, *_turns.of(angles, x.dtype))


class _Turns:
    """Cosines and sines of the last angles asked for: queries and keys of all layers ask for the same."""

    _known: tuple[torch.Tensor, torch.dtype, torch.Tensor, torch.Tensor] | None = None

    def of(self, angles: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the first half of the angles, [s, 1, 1, d / 2] each, in `dtype`."""
        if self._known is None or self._known[0] is not angles or self._known[1] != dtype:
            half = angles[..., : angles.size(-1) // 2]
            self._known = angles, dtype, half.cos().to(dtype), half.sin().to(dtype)
        return self._known[2:]


_turns = _Turns()


class TorchSelfAttention(SelfAttention):
    """megatron-core's self-attention, which turns queries and keys as soon as they are there.

    On a CPU, packed sequences are left to megatron-core, which turns each by itself. It reads their ends from
    the device for that, so on a GPU they are turned here, by the angles of every token.
    """

    _angles: torch.Tensor | None = None

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *args: Any,
        rotary_pos_emb: torch.Tensor | None = None,
        packed_seq_params: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As megatron-core's: [s, b, h] → ([s, b, h], bias)."""
        if packed_seq_params is None:
            self._angles, rotary_pos_emb = rotary_pos_emb, None
        elif rotary_pos_emb is not None and self.turns_packed(packed_seq_params, hidden_states):
            self._angles, rotary_pos_emb = packed_seq_params.angles(rotary_pos_emb), None
        kwargs |= {"rotary_pos_emb": rotary_pos_emb, "packed_seq_params": packed_seq_params}
        return super().forward(hidden_states, attention_mask, *args, **kwargs)

    @staticmethod
    def turns_packed(packed: Any, hidden_states: torch.Tensor) -> bool:
        """Whether packed sequences are turned here."""
        return isinstance(packed, PackedRow) and devices.is_gpu(hidden_states.device)

    def get_query_key_value_tensors(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        """Query, key and value, the first two turned."""
        query, key, *rest = super().get_query_key_value_tensors(*args, **kwargs)
        angles, self._angles = self._angles, None
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        return query, key, *rest


class _SwiGLU(torch.autograd.Function):
    """silu(gate) · up, keeping only the two for backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        gate, up = x.chunk(2, -1)
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        gate, up = x.chunk(2, -1)
        of_x = torch.empty_like(x)
        of_gate, of_up = of_x.chunk(2, -1)
        torch.mul(torch.nn.functional.silu(gate), gradient, out=of_up)
        torch.ops.aten.silu_backward.grad_input(gradient * up, gate, grad_input=of_gate)
        return of_x


def swiglu(x: torch.Tensor) -> torch.Tensor:
    """[..., 2f], the gate's channels and then the linear ones, → silu(gate) · up, [..., f]."""
    if devices.is_gpu(x.device):
        return bias_swiglu_impl(x, None)  # megatron-core's, compiled to one kernel
    return _SwiGLU.apply(x)


class TorchMLP(MLP):
    """megatron-core's MLP for a SwiGLU without biases."""

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        """[s, b, h] → ([s, b, h], no bias)."""
        inner, _ = self.linear_fc1(hidden_states)
        return self.linear_fc2(swiglu(inner))
