"""How fast are texts turned into a dataset?  ``python tests/bench/binarize.py [--peer DIR] [--text FILE]``

Interleaved rounds of: this suite with 1 and with 2 ranks; Megatron-LM's own ``tools/preprocess_data.py`` with
2 workers, from a checkout given with ``--peer``; without one, SentencePiece alone in a loop. Same text, same
tokenizer, the ``.bin`` compared byte for byte. Both sides are measured steady (from the first text read to
the last id written, without imports and starting processes) and as a whole process.

MB are 10^6 bytes of UTF-8. ``--text`` is a ``.jsonl`` with a ``text`` per line or a folder of ``.txt``.
Without it the text is made: words with the frequencies of natural text (Zipf) from a vocabulary that grows as
natural ones do (Heaps' law).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from conf.schema.preprocess import MEGABYTE, TokenizerConfig
from data_prep.characters import normalise
from data_prep.documents import DOCUMENTS, SCHEMA
from data_prep.job import find_mpiexec
from data_prep.tokenizer import MODEL_FILE, Tokenizer
from data_prep.train_tokenizer import train

CHUNK_MB = 8


def main() -> None:
    """Prepare the inputs, run the rounds, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="a checkout of Megatron-LM")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python in which its imports work")
    parser.add_argument("--text", type=Path, help="a .jsonl or a folder of .txt")
    parser.add_argument("--megabytes", type=float, default=60, help="text to use or make")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--one-rank-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ranks", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_rank_of:
        run_rank(arguments.one_rank_of, arguments.ranks)
        return
    with tempfile.TemporaryDirectory(prefix="elm-bench-") as scratch:
        folder = Path(scratch)
        size = prepare(folder, arguments)
        rounds: dict[str, list[dict]] = {}
        for number in range(arguments.rounds):
            for name, run in contestants(folder, arguments, size):
                rounds.setdefault(name, []).append(run())
                print(
                    f"round {number + 1}  {name:<22} {rounds[name][-1]['steady']:7.1f} MB/s steady",
                    flush=True,
                )
        report(rounds, identical(folder))


def prepare(folder: Path, arguments: argparse.Namespace) -> int:
    """Write the text for both sides and the tokenizer; returns the bytes of UTF-8."""
    texts, size, rows = [], 0, []
    for text in read_texts(arguments.text) if arguments.text else made_texts():
        text = normalise(text)
        if text:
            texts.append(text)
            size += len(text.encode())
        if size >= arguments.megabytes * MEGABYTE:
            break
    print(f"{len(texts):,} documents, {size / 1e6:.1f} MB", flush=True)
    (folder / "tokenizer").mkdir()
    some = texts[:: max(1, size // (30 * MEGABYTE))]
    (folder / "tokenizer" / MODEL_FILE).write_bytes(train(some, TokenizerConfig(vocab_size=arguments.vocab)))
    with (folder / "text.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    with pq.ParquetWriter(folder / DOCUMENTS, SCHEMA, compression="zstd") as writer:
        held = 0
        for number, text in enumerate(texts):
            rows.append({**dict.fromkeys(SCHEMA.names), "id": str(number), "split": "train", "text": text})
            held += len(text.encode())
            if held >= CHUNK_MB * MEGABYTE or number == len(texts) - 1:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows, held = [], 0
    return size


def read_texts(path: Path) -> Iterator[str]:
    if path.is_dir():
        for item in sorted(path.rglob("*.txt")):
            yield item.read_text(encoding="utf-8", errors="replace")
    else:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["text"]


def made_texts() -> Iterator[str]:
    """Documents of some 60 kB without end; every 60th word or so is new, others have frequency 1/rank."""
    generator = random.Random(7)
    syllables = [
        a + b + c for a in "bdfghklmnprstvw" for b in ("a", "e", "i", "o", "ee", "ui") for c in ("", "n", "r")
    ]
    words = ["".join(generator.choices(syllables, k=generator.choice((1, 1, 2, 2, 3)))) for _ in range(500)]
    while True:
        lines = []
        for _ in range(700):
            line = []
            for _ in range(14):
                if generator.random() < 0.016:
                    words.append("".join(generator.choices(syllables, k=generator.choice((2, 3, 3, 4, 5)))))
                line.append(words[int(len(words) ** generator.random()) - 1])
            lines.append(" ".join(line) + generator.choice((".", ",", "", "")))
        yield "\n".join(lines)


def contestants(folder: Path, arguments: argparse.Namespace, size: int):
    """(name, function that runs it once), in the order of a round."""
    yield "suite, 1 rank", lambda: run_suite(folder, 1, size)
    yield "suite, 2 ranks", lambda: run_suite(folder, 2, size)
    if arguments.peer:
        yield "peer, 2 workers", lambda: run_peer(folder, arguments, size)
    else:
        yield "SentencePiece, 1 core", lambda: run_sentencepiece(folder, size)


def run_suite(folder: Path, ranks: int, size: int) -> dict:
    """Binarize in fresh processes; rates in MB/s and the share of each stage."""
    for name in ("train.bin", "train.lengths", "valid.bin", "valid.lengths", "rounds.jsonl"):
        (folder / name).unlink(missing_ok=True)
    command = [sys.executable, __file__, "--one-rank-of", str(folder), "--ranks", str(ranks)]
    if ranks > 1:
        command = [find_mpiexec(), "-n", str(ranks), *command]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
    whole = time.perf_counter() - started
    measured = json.loads(done.stdout)
    slowest = max(item["seconds"] for item in measured)
    stages = {name: sum(item["stages"][name] for item in measured) for name in measured[0]["stages"]}
    return {"steady": size / 1e6 / slowest, "whole": size / 1e6 / whole, "stages": stages}


def run_rank(folder: Path, ranks: int) -> None:
    """One rank: the stage as the suite runs it, timed from the first chunk on."""
    from data_prep.binarize import binarize
    from data_prep.comm import world

    comm = world(ranks)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    _, stages, _ = binarize(folder, tokenizer, comm, lambda done, total: None)
    every = comm.gather({"seconds": sum(stages.values()), "stages": stages})
    if comm.rank == 0:
        print(json.dumps(every))


def run_peer(folder: Path, arguments: argparse.Namespace, size: int) -> dict:
    """Megatron-LM's tool; its own last progress line gives the steady rate."""
    peer = arguments.peer.resolve()
    command = [
        arguments.peer_python, str(peer / "tools" / "preprocess_data.py"),
        "--input", str(folder / "text.jsonl"),
        "--output-prefix", str(folder / "peer"), "--workers", "2", "--append-eod", "--log-interval", "50",
        "--tokenizer-type", "SentencePieceTokenizer",
        "--tokenizer-model", str(folder / "tokenizer" / MODEL_FILE),
    ]  # fmt: skip
    started = time.perf_counter()
    env = {**environment(), "PYTHONPATH": str(peer)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(f"the peer failed:\n{done.stderr[-2000:]}")
    whole = time.perf_counter() - started
    lines = re.findall(r"Processed (\d+) documents \(([\d.]+) docs/s", done.stderr)
    count, rate = int(lines[-1][0]), float(lines[-1][1])
    steady = (size / 1e6) * (count / documents(folder)) / (count / rate)
    return {"steady": steady, "whole": size / 1e6 / whole, "stages": {}}


def run_sentencepiece(folder: Path, size: int) -> dict:
    """SentencePiece in a plain loop over the texts, ids thrown away."""
    tokenizer = Tokenizer.load(folder / "tokenizer")
    texts = pq.read_table(folder / DOCUMENTS, columns=["text"])["text"].to_pylist()
    started = time.perf_counter()
    for text in texts:
        tokenizer.encode(text)
    steady = size / 1e6 / (time.perf_counter() - started)
    return {"steady": steady, "whole": steady, "stages": {}}


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def documents(folder: Path) -> int:
    return pq.ParquetFile(folder / DOCUMENTS).metadata.num_rows


def identical(folder: Path) -> str:
    peer = folder / "peer_text_document.bin"
    if not peer.exists():
        return "no peer to compare with"
    return "identical" if peer.read_bytes() == (folder / "train.bin").read_bytes() else "DIFFERENT"


def report(rounds: dict[str, list[dict]], same: str) -> None:
    """Medians over the rounds, and what each is against the last contestant."""
    last = statistics.median(item["steady"] for item in rounds[list(rounds)[-1]])
    print(f"\n{'medians, MB/s':<24}{'steady':>10}{'whole':>10}{'steady against last':>22}")
    for name, runs in rounds.items():
        steady, whole = (statistics.median(item[key] for item in runs) for key in ("steady", "whole"))
        print(f"{name:<24}{steady:>10.1f}{whole:>10.1f}{steady / last:>21.1f}x")
        if runs[0]["stages"]:
            total = sum(sum(item["stages"].values()) for item in runs)
            shares = {key: sum(item["stages"][key] for item in runs) / total for key in runs[0]["stages"]}
            print("   " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items()))
    print(f"the .bin of the last suite run and of the peer: {same}")


if __name__ == "__main__":
    main()
