"""What the mask of the Goldfish loss costs of a step's CPU time: python tests/bench/goldfish.py [--steps 20]

The mask of a batch is timed alone, and so is the CPU time of a training step of the same batch with the small
model of `train.py` (hidden 512, 4 layers, vocabulary 32,000, 8 × 256 tokens, fp32, one rank, two threads).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

VOCAB, BATCH, SEQ = 32_000, 8, 256


def mask_seconds(rows: int, length: int, repeats: int) -> float:
    """CPU seconds of one mask, median."""
    from elm_megatron.engine.goldfish import Goldfish

    goldfish, rng = Goldfish(50, 13), np.random.default_rng(0)
    batches = [rng.integers(0, VOCAB, (rows, length)) for _ in range(repeats)]
    return statistics.median(_cpu(lambda batch=batch: goldfish.kept(batch)) for batch in batches)


def step_seconds(steps: int) -> float:
    """CPU seconds of one training step, median."""
    import torch

    from conf.schema.parallel import ParallelConfig
    from elm_megatron.engine import distributed
    from elm_megatron.engine.pretraining import Pretraining
    from elm_megatron.engine.train import Trainer
    from elm_megatron.model import device as devices
    from elm_megatron.run.world import World
    from tests.elm_megatron.configs import pretrain_config, small_model
    from tests.elm_megatron.engine.rank_functions import folder
    from tests.elm_megatron.small_dataset import make_dataset

    torch.set_num_threads(2)
    sizes = {"hidden_size": 512, "ffn_hidden_size": 1280, "num_query_groups": 4, "vocab_size": VOCAB}
    model = small_model(**sizes, max_position_embeddings=SEQ)
    with tempfile.TemporaryDirectory() as scratch:
        data = make_dataset(Path(scratch) / "data", train_tokens=40_000)
        loop = {"steps": steps, "seq_length": SEQ, "global_batch_size": BATCH, "micro_batch_size": BATCH}
        config = pretrain_config(Path(scratch) / "run", data, model=model, **loop)
        folder(config)
        world = World.single(Path(scratch))
        device = devices.prepare("cpu", 0)
        distributed.join(world, device, ParallelConfig())
        try:
            distributed.seed_everything(1)
            trainer = Trainer(Pretraining(config, world, device))
            trainer.train_step()
            return statistics.median(_cpu(trainer.train_step) for _ in range(steps - 1))
        finally:
            distributed.leave()


def _cpu(function: object) -> float:
    before = time.process_time()
    function()  # type: ignore[operator]
    return time.process_time() - before


def main() -> None:
    """Print the two times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    steps = parser.parse_args().steps
    mask = mask_seconds(BATCH, SEQ, 200)
    step = step_seconds(steps)
    print(f"mask of {BATCH} × {SEQ} tokens: {mask * 1e6:,.0f} µs of CPU time; step: {step * 1e3:,.0f} ms")
    print(f"share of a step's CPU time: {mask / step:.4%}")
    large = mask_seconds(64, 2048, 20)
    print(f"mask of 64 × 2,048 tokens (one rank's share of a step of model=large): {large * 1e3:.1f} ms")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
