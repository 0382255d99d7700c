"""A row of several sequences, one behind the other, as attention and rotary positions ask for it.

megatron-core's description has the ends of the sequences on the device alone. Reading them there makes the
host wait for the device in every layer, so they are kept on the host too.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from megatron.core.packed_seq_params import PackedSeqParams

from elm_megatron.model import device as devices


@dataclass
class PackedRow(PackedSeqParams):
    """megatron-core's parameters of a packed row.

    Attributes:
        ends: 0 and the end of each sequence, in tokens; on the host.
    """

    ends: list[int] = field(default_factory=list)
    _angles: tuple[torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def of(cls, ends: list[int], device: torch.device) -> PackedRow:
        """A row whose sequences end at `ends`, which begins with 0."""
        bounds = devices.moved(torch.tensor(ends, dtype=torch.int32), device)
        longest = max(stop - start for start, stop in itertools.pairwise(ends))
        return cls(
            qkv_format="thd",
            cu_seqlens_q=bounds,
            cu_seqlens_kv=bounds,
            max_seqlen_q=longest,
            max_seqlen_kv=longest,
            ends=ends,
        )

    def angles(self, table: torch.Tensor) -> torch.Tensor:
        """Rotary angles of every token of the row, whose positions begin anew in each sequence.

        Args:
            table: [longest, 1, 1, d], by position.

        Returns:
            [tokens, 1, 1, d]; the same tensor for all layers of a pass.
        """
        if self._angles is None or self._angles[0] is not table:
            starts, total = self.cu_seqlens_q[:-1].long(), self.ends[-1]
            lengths = self.cu_seqlens_q.long().diff()
            first = torch.repeat_interleave(starts, lengths, output_size=total)
            positions = torch.arange(total, device=first.device) - first
            self._angles = table, table.index_select(0, positions)
        return self._angles[1]


def ends_of(packed: PackedSeqParams) -> list[int]:
    """Where sequences end; from the host where it is known there."""
    return packed.ends if isinstance(packed, PackedRow) else packed.cu_seqlens_q.tolist()
