"""How long until anything is learnt: python tests/bench/start.py [--rounds 3] [--tokens 1000000000]

Medians of: printing a configuration; the command to the first finished update (tiny, tp=2, the dataset is
there); the dry run of 512 ranks of the large model; and the index of one epoch of so many tokens, which every
rank builds in memory (its documents are sparse files of zeros, as many as theses have that many tokens).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOKENS_PER_DOCUMENT = 3_300
PRETRAIN = [sys.executable, str(ROOT / "launch" / "pretrain.py")]
LARGE = ["model=large", "cluster=snellius", "cluster.nodes=128", "parallel.tp=4", "parallel.pp=4"]


def seconds_of(command: list[str]) -> float:
    """Wall seconds of a command that must succeed."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def seconds_to_first_update(data: Path, run: Path) -> float:
    """Wall seconds from the command to the first row of metrics.jsonl."""
    keys = [f"data.dir={data}", f"run.dir={run}", "parallel.tp=2", "train.steps=1", "train.eval_batches=1"]
    began = time.perf_counter()
    process = subprocess.Popen([*PRETRAIN, *keys], stdout=subprocess.DEVNULL)
    metrics = run / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        if process.poll() not in (None, 0):
            raise SystemExit(f"pretraining failed with status {process.returncode}")
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    process.wait()
    return seconds


def index(folder: Path, tokens: int) -> tuple[float, float, float]:
    """(seconds to build, seconds to the first sample, MB it added to this process) of one epoch's index."""
    sys.path.insert(0, str(ROOT))
    import numpy as np

    from conf.schema.data import TrainingData
    from data_prep.manifest import Manifest
    from elm_megatron.engine import data
    from tests.elm_megatron.small_dataset import make_dataset, write_index

    make_dataset(folder)
    manifest = Manifest.load(folder)
    shares = np.random.default_rng(0).lognormal(0.0, 1.0, max(1, tokens // TOKENS_PER_DOCUMENT))
    lengths = np.maximum(1, shares / shares.sum() * tokens).astype(np.int64)
    train = replace(manifest.splits["train"], documents=len(lengths), tokens=int(lengths.sum()))
    write_index(folder / f"{train.prefix}.idx", lengths)
    with (folder / f"{train.prefix}.bin").open("wb") as file:
        file.truncate(2 * train.tokens)
    manifest = replace(manifest, splits={**manifest.splits, "train": train})
    before, began = resident(), time.perf_counter()
    samples = data.open_split(manifest, "train", 2048, 1, TrainingData(dir=folder))
    built = time.perf_counter() - began
    ids = data.sample_ids(0, 8, len(samples), 1)
    samples[int(ids[0])]
    return built, time.perf_counter() - began, (resident() - before) / 1e6


def resident() -> int:
    """Bytes this process holds in memory now."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=1_000_000_000)
    options = parser.parse_args()
    rounds = range(options.rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = folder / "data"
        seconds_of([sys.executable, str(ROOT / "launch" / "preprocess.py"), f"data.dir={data}"])
        cfg = [seconds_of([*PRETRAIN, "--cfg", "job"]) for _ in rounds]
        first = [seconds_to_first_update(data, folder / f"run{i}") for i in rounds]
        dry = [seconds_of([*PRETRAIN, *LARGE, f"run.dir={folder / 'dry'}", "dry_run=true"]) for _ in rounds]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            built, sampled, megabytes = pool.apply(index, (folder / "index", options.tokens))
    for what, times in (
        ("--cfg job", cfg),
        ("command to first update, tiny, tp=2", first),
        ("dry run of 512 ranks, large, tp=4 pp=4", dry),
    ):
        print(f"{what}: {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")
    print(
        f"index of {options.tokens:,} tokens: {built:.2f} s, first sample after {sampled:.2f} s, "
        f"{megabytes:.0f} MB a rank"
    )


if __name__ == "__main__":
    main()
