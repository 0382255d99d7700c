"""Context parallelism: which part of every sequence a rank holds, and whole keys and values for attention.

A sequence is cut into 2·cp chunks; rank r holds chunk r and chunk 2·cp−1−r, as megatron-core and Transformer
Engine have it, so that causal attention is the same work for every rank.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region


def chunks_of(rank: int, cp: int) -> tuple[int, int]:
    """The two chunks of a rank, in the order it holds them."""
    return rank, 2 * cp - 1 - rank


def own_part(rows: torch.Tensor) -> torch.Tensor:
    """This rank's tokens of whole sequences: [b, s] → [b, s / cp]; the same where cp is 1."""
    cp = parallel_state.get_context_parallel_world_size()
    if cp <= 1:
        return rows
    chunks = rows.chunk(2 * cp, dim=1)
    return torch.cat([chunks[i] for i in chunks_of(parallel_state.get_context_parallel_rank(), cp)], dim=1)


def whole_sequence(part: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """All ranks' parts in the order of the sequence, [s / cp, …] → [s, …]; backward sums their gradients."""
    cp = group.size()
    gathered = gather_from_sequence_parallel_region(part, group=group)
    chunks = gathered.view(2 * cp, -1, *part.shape[1:])
    held = [chunk for rank in range(cp) for chunk in chunks_of(rank, cp)]
    order = torch.tensor(held).argsort().to(part.device)
    return chunks.index_select(0, order).flatten(0, 1)


def hidden_keys(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    """Causal mask of the last `queries` of `keys` tokens, bool [queries, keys]: True where hidden."""
    whole = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return whole.triu(keys - queries + 1)
