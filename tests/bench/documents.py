"""How fast are raw works cleaned, by stage?  ``python tests/bench/documents.py [--text DIR] [--peer SCRIPT]``

Text works (made ones, or the ``.txt`` files of a folder) and PDFs go through the documents stage in this
process, each step timed by itself; then the whole build is run with 1 and with 2 ranks. ``--peer`` is a
script that is given a folder of ``.txt`` and does the same by other means; its wall time is shown too.

MB are 10^6 bytes of raw text. On a machine that others use too, compare the seconds of processors.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from conf.schema.preprocess import MEGABYTE, CleanConfig, PreprocessConfig
from data_prep.clean import RULES, Cleaned, is_on
from data_prep.dedup import fingerprints
from data_prep.job import find_mpiexec
from data_prep.pdf import extract
from data_prep.settings import to_mapping
from data_prep.text_layout import text_blocks
from tests.data_prep.conftest import write_corpus
from tests.data_prep.pdf_files import pdf

PDF_PAGES = 40


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, help="a folder of .txt files, one work each")
    parser.add_argument("--megabytes", type=float, default=6, help="text to make where no folder is given")
    parser.add_argument("--pdfs", type=int, default=6, help=f"PDFs of {PDF_PAGES} pages to make")
    parser.add_argument("--peer", type=Path, help="a Python script that is given the folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="elm-bench-") as scratch:
        folder = arguments.text or write_corpus(
            Path(scratch) / "text", works=20, words=int(arguments.megabytes * 8_000)
        )
        works = [path.read_bytes() for path in sorted(folder.glob("*.txt"))]
        size = sum(map(len, works)) / MEGABYTE
        print(f"{len(works)} works, {size:.1f} MB")
        by_stage(works, size)
        by_page(arguments.pdfs)
        for ranks in (1, 2):
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = whole(folder, Path(scratch) / f"data-{ranks}", ranks)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            busy = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
            print(f"whole build, {ranks} rank(s)      {size / seconds:8.2f} MB/s, {busy:.1f} s of processors")
        if arguments.peer:
            started = time.perf_counter()
            subprocess.run([sys.executable, arguments.peer, folder], check=True)
            print(f"peer                     {size / (time.perf_counter() - started):8.2f} MB/s")


def by_stage(works: list[bytes], size: float) -> None:
    """Seconds of each cleaning rule, of reading and of fingerprints, in this process."""
    config, seconds = CleanConfig(), defaultdict(float)

    def timed(stage: str, function, *values):
        started = time.perf_counter()
        result = function(*values)
        seconds[stage] += time.perf_counter() - started
        return result

    for data in works:
        work = Cleaned(timed("read", text_blocks, data))
        for rule in RULES:
            if is_on(rule, config) and not work.reason:
                timed(rule.apply.__name__, rule.apply, work, config)
        timed("fingerprints", fingerprints, work.blocks, config.dedup)
    for stage, spent in seconds.items():
        print(f"{stage:<24} {size / max(spent, 1e-9):8.1f} MB/s {spent / sum(seconds.values()):6.1%}")
    print(f"{'all, names included':<24} {size / sum(seconds.values()):8.2f} MB/s")


def by_page(count: int) -> None:
    """Pages of PDFs per second, with one child."""
    generator = random.Random(1)
    words = [
        "de",
        "het",
        "een",
        "onderzoek",
        "markt",
        "haven",
        "nachttrein",
        "council",
        "election",
        "repair",
        "nurse",
    ]
    lines = [[" ".join(generator.choices(words, k=13)) for _ in range(45)] for _ in range(PDF_PAGES)]
    data = pdf(lines, size=10)
    extract(data)
    started = time.perf_counter()
    for _ in range(count):
        extract(data)
    print(f"{'PDF':<24} {count * PDF_PAGES / (time.perf_counter() - started):8.0f} pages/s")


def whole(folder: Path, data_dir: Path, ranks: int) -> float:
    """Seconds of a build from a folder, starting processes included."""
    config = PreprocessConfig()
    config.corpus.path, config.corpus.quarantine = str(folder), True
    config.data.dir, config.preprocess.chunk_mb = str(data_dir), 0.5
    path = data_dir.with_suffix(".json")
    path.write_text(json.dumps(to_mapping(config)))
    command = [sys.executable, "-m", "data_prep.job", "--ranks", str(ranks), str(path)]
    if ranks > 1:
        command = [find_mpiexec(), "-n", str(ranks), *command]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
