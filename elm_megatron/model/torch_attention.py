"""Core attention on torch's `scaled_dot_product_attention`: causal, no mask tensor, grouped queries."""

from __future__ import annotations

import itertools

import torch
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig

from elm_megatron.model import device as devices
from elm_megatron.model.context_parallel import chunks_of, hidden_keys, whole_sequence
from elm_megatron.model.packed import ends_of

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None


class TorchCoreAttention(torch.nn.Module):
    """softmax(q·kᵀ/√d)·v with torch's fused kernel.

    Takes the arguments megatron-core gives a core attention. Heads are already split over tensor-parallel
    ranks. Being causal by flag, it builds no mask; under context parallelism it gathers keys and values, and
    there is a mask.

    Attributes:
        fused_packed: take torch's one kernel for packed sequences on a GPU; `self_check.py` decides, since
            older versions of torch and older GPUs have none.
    """

    fused_packed = False

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        **_: object,
    ):
        super().__init__()
        self.cp = config.context_parallel_size
        self.scale = softmax_scale
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
        **_: object,
    ) -> torch.Tensor:
        """Attend.

        Args:
            query: [s, b, heads, d], s being this rank's part under context parallelism; [t, heads, d] for
                sequences packed one behind the other.
            key: [s, b, groups, d].
            value: [s, b, groups, d].
            attention_mask: None for causal attention; else bool [b, 1, s, s], True where a key is hidden
                (Megatron's convention).
            packed_seq_params: where packed sequences begin and end; each is attended alone.

        Returns:
            [s, b, heads·d], the dtype of query; packed [t, heads·d].
        """
        if packed_seq_params is not None:
            if self.fused_packed and devices.is_gpu(query.device):
                return self._attend_varlen(query, key, value, packed_seq_params)
            return self._attend_packed(query, key, value, ends_of(packed_seq_params))
        if self.cp > 1:
            return self._attend_gathered(query, key, value)
        return self._attend(query, key, value, attention_mask)

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, hidden: torch.Tensor | None = None
    ) -> torch.Tensor:
        q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        out = torch.nn.functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if hidden is None else ~hidden,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=hidden is None,
            scale=self.scale,
            enable_gqa=k.size(1) != q.size(1),
        )
        return out.permute(2, 0, 1, 3).flatten(2)

    def _attend_gathered(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Both chunks of this rank's queries, each over all keys up to its own end."""
        group = parallel_state.get_context_parallel_group()
        key, value = whole_sequence(key, group), whole_sequence(value, group)
        parts = []
        for part, chunk in zip(query.chunk(2), chunks_of(group.rank(), self.cp), strict=True):
            end = (chunk + 1) * len(part)
            hidden = hidden_keys(len(part), end, query.device)
            parts.append(self._attend(part, key[:end], value[:end], hidden))
        return torch.cat(parts)

    def _attend_varlen(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: PackedSeqParams
    ) -> torch.Tensor:
        """All sequences in one kernel (torch's flash attention for sequences of several lengths)."""
        bounds, longest = packed.cu_seqlens_q, packed.max_seqlen_q
        options = {"scale": self.scale, "enable_gqa": key.size(1) != query.size(1)}
        causal = (-1, 0)  # no limit to the left, nothing to the right
        out = varlen_attn(query, key, value, bounds, bounds, longest, longest, window_size=causal, **options)
        return out.flatten(1)

    def _attend_packed(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: list[int]
    ) -> torch.Tensor:
        """Each sequence by itself: nothing of one reaches another, not even a rounding."""
        sizes = [stop - start for start, stop in itertools.pairwise(ends)]
        parts = [x.unsqueeze(1).split(sizes) for x in (query, key, value)]
        return torch.cat([self._attend(q, k, v).squeeze(1) for q, k, v in zip(*parts, strict=True)])
