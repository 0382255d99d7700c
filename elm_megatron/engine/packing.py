"""Sequences one behind the other in a row, each attended alone with positions of its own."""

from __future__ import annotations

import torch
from megatron.core.packed_seq_params import PackedSeqParams

from elm_megatron.model.packed import PackedRow


def packed_params(ends: list[int], device: torch.device) -> PackedSeqParams:
    """megatron-core's description of a packed batch: int32 [sequences + 1] of ends, and the longest."""
    return PackedRow.of(ends, device)


def document_ends(tokens: torch.Tensor, eos_id: int) -> list[int]:
    """Where documents end in rows laid one behind the other: behind each EOS, and at each row's end.

    Args:
        tokens: int64 [b, s].
    """
    rows = range(0, tokens.numel() + 1, tokens.size(1))
    ends = (tokens.flatten() == eos_id).nonzero().flatten() + 1
    return sorted({*rows, *ends.tolist()})
