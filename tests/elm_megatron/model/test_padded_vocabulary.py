"""Rows that pad the vocabulary are no tokens: they take part in no loss in any layout and precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from elm_megatron.run.world import World
from tests.elm_megatron.configs import small_model
from tests.elm_megatron.rank_pool import RankPool

VOCAB = 250  # padded to 256


def losses(world: World, tp: int, precision: str, z_loss: float) -> Any:
    """Losses of a model whose logits are all below those of its padded rows, and what they must be."""
    from conf.schema.parallel import ParallelConfig
    from elm_megatron.engine import distributed
    from elm_megatron.model import device as devices
    from elm_megatron.model import initial_weights, llama

    device = devices.prepare("cpu", world.local_rank)
    parallel = ParallelConfig(tp=tp)
    distributed.join(world, device, parallel)
    try:
        distributed.seed_everything(0)
        model = small_model(vocab_size=VOCAB)
        config = llama.transformer_config(model, parallel, precision)
        (chunk,) = llama.build(model, parallel, config, transformer_engine=False)
        initial_weights.initialize([chunk], model, 1)
        with torch.no_grad():
            rows = chunk.output_layer.weight
            rows[chunk.real_vocabulary :] = 0.0
            rows[: chunk.real_vocabulary] *= 30.0
        chunk.z_loss = z_loss
        ids = torch.arange(1, 49).view(2, 24) * 5
        positions = torch.arange(24).expand_as(ids)
        with torch.no_grad():
            found = chunk(ids, positions, None, labels=ids.roll(-1, 1)).float()
            logits = chunk(ids, positions, None).float()
        if tp > 1:
            parts = [torch.empty_like(logits) for _ in range(tp)]
            torch.distributed.all_gather(parts, logits.contiguous())
            logits = torch.cat(parts, -1)
        real = logits[..., :VOCAB].flatten(0, 1)
        expected = torch.nn.functional.cross_entropy(real, ids.roll(-1, 1).flatten(), reduction="none")
        return (found.flatten() - expected).abs().max().item()
    finally:
        distributed.leave()


@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("bf16", 3e-1)])
@pytest.mark.parametrize("z_loss", [0.0, 1e-3])
def test_padded_rows_take_no_part(
    tp: int, precision: str, limit: float, z_loss: float, ranks: RankPool, tmp_path: Path
) -> None:
    for difference in ranks.run(tp, losses, tp=tp, precision=precision, z_loss=z_loss):
        assert difference < limit
