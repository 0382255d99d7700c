"""Index and search of `trace_answer`: python tests/bench/tracing.py [--megabytes 100] [--answers 200]

A dataset of invented ids (uint16, Zipf's law, passages that return in other works) is indexed in a process
of its own, whose peak memory is printed. Then answers of 400 tokens, half of each cut out of the works, are
traced with the index open.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from data_prep.manifest import FileInfo, Manifest, Split, TokenizerInfo  # noqa: E402
from elm_megatron.trace.index import Index, build  # noqa: E402
from tests.elm_megatron.small_dataset import write_index  # noqa: E402

VOCAB, LENGTH, ANSWER = 32_000, 10_000, 400


def made(folder: Path, megabytes: int) -> Manifest:
    """A dataset of works of `LENGTH` ids; a tenth of each work is copied from others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    works = megabytes * 1_000_000 // 2 // LENGTH
    ids = (rng.zipf(1.2, works * LENGTH) % (VOCAB - 3) + 3).astype(np.uint16).reshape(works, LENGTH)
    for work in range(1, works):
        source, place, goal = rng.integers(work), *rng.integers(0, LENGTH - 1000, 2)
        ids[work, goal : goal + 1000] = ids[source, place : place + 1000]
    ids[:, -1] = 2
    folder.mkdir()
    splits = {}
    for name, part in (("train", ids), ("valid", ids[:1])):
        part.tofile(folder / f"b-{name}.bin")
        write_index(folder / f"b-{name}.idx", np.full(len(part), LENGTH))
        infos = [FileInfo.of(folder / f"b-{name}.{kind}") for kind in ("bin", "idx")]
        splits[name] = Split(f"b-{name}", len(part), part.size, part.nbytes, 1.0, *infos)
    rows = {"id": [f"w{n}" for n in range(works)], "title": ["A title"] * works, "split": ["train"] * works}
    pq.write_table(pa.table(rows), folder / "documents.parquet")
    nothing: list[dict] = [{}, {}, {}, {}, {}]
    info, counts = TokenizerInfo("0" * 64, VOCAB, 1, 2, 3), {"in": works, "out": works, "dropped": {}}
    manifest = Manifest("b", "k", "uint16", info, splits, {}, counts, *nothing, [], {})
    (folder / "manifest.json").write_bytes(manifest.dumps())
    return Manifest.load(folder)


def index_alone(folder: str) -> None:
    """What the process that indexes runs; prints its seconds and its peak memory in MB."""
    began = time.perf_counter()
    build(Path(folder) / "trace", Manifest.load(Path(folder)), lambda done, total: None)
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory too
    peak = int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1024
    print(f"{time.perf_counter() - began:.1f} {peak:.0f}")


def search(index: Index, answers: int) -> list[float]:
    """Seconds of each answer: its passages and their works."""
    ids = np.memmap(index.manifest.prefix("train").with_name("b-train.bin"), np.uint16, "r")
    rng = np.random.default_rng(1)
    seconds = []
    for number in range(answers):
        parts = [(rng.zipf(1.2, ANSWER // 8) % (VOCAB - 3) + 3).astype(np.uint16) for _ in range(4)]
        starts = rng.integers(0, len(ids) - ANSWER, 4)
        cut = [ids[start : start + ANSWER // 8] for start in starts]
        answer = np.concatenate([part for pair in zip(parts, cut, strict=True) for part in pair])
        if number % 10 == 9:  # all of it
            answer = ids[starts[0] : starts[0] + ANSWER]
        began = time.perf_counter()
        for start, stop in index.spans(answer, 8):
            index.works_of(answer[start:stop])
        seconds.append(time.perf_counter() - began)
    return seconds


def main() -> None:
    """Print size, memory and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--answers", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        manifest = made(folder, asked.megabytes)
        alone = [sys.executable, "-c", f"from tracing import index_alone; index_alone({str(folder)!r})"]
        done = subprocess.run(alone, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        seconds, peak = done.stdout.split()
        tokens = manifest.splits["train"].tokens
        size = sum(path.stat().st_size for path in (folder / "trace").iterdir())
        print(f"{tokens:,} tokens, {asked.megabytes} MB of ids: {seconds} s, peak {peak} MB of memory")
        print(f"index: {size:,} bytes, {size / tokens:.3f} bytes a token")
        began = time.perf_counter()
        index = Index.open(folder / "trace", manifest)
        print(f"open: {(time.perf_counter() - began) * 1e3:.0f} ms, {len(index.shards)} shards")
        times = sorted(search(index, asked.answers))
        print(
            f"{asked.answers} answers of {ANSWER} tokens: median {statistics.median(times) * 1e3:.1f} ms, "
            f"95% below {times[int(len(times) * 0.95)] * 1e3:.1f} ms, longest {times[-1] * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main()
