"""What a save costs, asynchronous beside synchronous: python tests/bench/checkpoint.py [--rounds 5]

One model trains on all threads; saves of both kinds take turns. The cost of a save is the time its steps
took beyond the median undisturbed step, summed until the checkpoint is committed. It is compared with waiting
for the same save. Also shown: bytes, MB/s beside a plain write of the same bytes, and what hashing them in
one thread of usual priority costs the training.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"hidden_size": 512, "ffn_hidden_size": 1280, "num_layers": 4, "num_attention_heads": 4}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    sys.path.insert(0, str(ROOT))
    from elm_megatron.model import device as devices

    device = devices.prepare("cpu", 0)
    from elm_megatron.checkpoint import rank_state
    from elm_megatron.checkpoint.retention import Retention
    from elm_megatron.checkpoint.save import CheckpointSaver
    from elm_megatron.engine import distributed
    from elm_megatron.engine.pretraining import Pretraining
    from elm_megatron.engine.train import Trainer
    from elm_megatron.run.folder import RunFolder
    from elm_megatron.run.world import World
    from tests.elm_megatron.configs import pretrain_config, small_model
    from tests.elm_megatron.small_dataset import make_dataset

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = make_dataset(folder / "data", 400_000, 4_000)
        model = small_model(**SIZES, num_query_groups=4, vocab_size=32_000, max_position_embeddings=256)
        config = pretrain_config(
            folder / "run",
            data,
            1,
            model,
            global_batch_size=4,
            micro_batch_size=4,
            seq_length=256,
            steps=10_000,
        )
        world = World.single(folder)
        distributed.join(world, device, config.parallel)
        distributed.seed_everything(1)
        trainer = Trainer(Pretraining(config, world, device))
        saver = CheckpointSaver(RunFolder(config.run.dir), world, Retention.of(config.train))

        def step() -> float:
            began = time.perf_counter()
            trainer.train_step()
            return time.perf_counter() - began

        def save(wait: bool) -> tuple[float, int]:
            """Seconds until training could go on, and bytes."""
            began = time.perf_counter()
            saver.wait()
            shards = rank_state.snapshot(trainer.chunks, trainer.optimizer, False, buffers=buffers)
            saver.save(trainer.step, shards, {})
            if wait:
                saver.wait()
            return time.perf_counter() - began, sum(shard.data.nbytes for shard in shards)

        def beside(thread: threading.Thread) -> list[float]:
            """Seconds of the steps that a thread's work lies in."""
            steps = []
            while thread.is_alive():
                steps.append(step())
            return steps

        buffers: rank_state.Buffers = {}
        for _ in range(3):
            step()
        save(wait=True)
        costs, stalls, until, hashing, synchronous, plain = [], [], [], [], [], []
        for _ in range(rounds):
            undisturbed = [step() for _ in range(5)]
            stall, size = save(wait=False)
            saving = beside(saver._thread)
            undisturbed += [step() for _ in range(5)]
            thread = threading.Thread(target=_hash_alone, args=(size,))
            thread.start()
            hashed = beside(thread)
            undisturbed += [step() for _ in range(5)]
            quiet = statistics.median(undisturbed)
            stalls.append(stall)
            until.append(stall + sum(saving))
            costs.append(until[-1] - len(saving) * quiet)
            hashing.append(sum(hashed) - len(hashed) * quiet)
            synchronous.append(save(wait=True)[0])
            plain.append(_plain_write(folder / "plain", size))
        distributed.leave()
    wait, cost = statistics.median(synchronous), statistics.median(costs)
    low, _, high = statistics.quantiles(costs, n=4)
    print(f"checkpoint of {size / 1e6:.0f} MB, median of {rounds} rounds, undisturbed step {quiet:.2f} s")
    print(f"plain write and fsync of the same bytes  {statistics.median(plain):6.2f} s")
    print(f"synchronous save                         {wait:6.2f} s  ({size / 1e6 / wait:.0f} MB/s)")
    print(f"asynchronous: stall for the copy         {statistics.median(stalls):6.2f} s")
    print(
        f"asynchronous: cost until committed       {cost:6.2f} s  "
        f"({cost / wait:.0%} of synchronous, target 50%; half the rounds {low:.2f} to {high:.2f} s)"
    )
    print(f"asynchronous: committed after            {statistics.median(until):6.2f} s of training")
    print(f"hashing the same bytes beside training   {statistics.median(hashing):6.2f} s")


def _hash_alone(size: int) -> None:
    block = bytes(1 << 23)
    digest = hashlib.sha256()
    for _ in range(size // len(block)):
        digest.update(block)


def _plain_write(path: Path, size: int) -> float:
    block = os.urandom(1 << 22)
    began = time.perf_counter()
    with path.open("wb") as f:
        for _ in range(size // len(block)):
            f.write(block)
        f.flush()
        os.fsync(f.fileno())
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
