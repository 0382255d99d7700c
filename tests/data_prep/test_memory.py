"""The memory of binarizing does not grow with the corpus."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.schema.preprocess import TokenizerConfig
from data_prep.documents import DOCUMENTS, SCHEMA
from data_prep.train_tokenizer import train

CODE = """
import re, sys
from pathlib import Path
from data_prep.binarize import binarize
from data_prep.comm import SingleProcess
from data_prep.tokenizer import Tokenizer
folder = Path(sys.argv[1])
binarize(folder, Tokenizer.load(folder), SingleProcess(), lambda done, total: None)
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
"""


def write_documents(folder: Path, megabytes: int) -> None:
    """Words with frequency 1/rank out of 600,000, in works of 60 kB and row groups of 8 MB."""
    folder.mkdir()
    generator = np.random.default_rng(5)
    letters = generator.integers(97, 123, (600_000, 9), np.uint8)
    words = np.array([bytes(row[: 2 + number % 8]).decode() for number, row in enumerate(letters)], object)
    written = 0
    with pq.ParquetWriter(folder / DOCUMENTS, SCHEMA, compression="zstd") as writer:
        while written < megabytes * 10**6:
            rows, size = [], 0
            while size < 8e6:
                text = " ".join(words[(600_000 ** generator.random(10_000)).astype(np.int64) - 1])
                rows.append(
                    {**dict.fromkeys(SCHEMA.names), "id": f"{written + size}", "split": "train", "text": text}
                )
                size += len(text)
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
            written += size
    if megabytes <= 100:
        model = train((row["text"] for row in rows), TokenizerConfig(vocab_size=8000))
        (folder / "tokenizer.model").write_bytes(model)


@pytest.mark.slow
def test_a_gigabyte_takes_no_more_memory_than_a_tenth_of_it(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    write_documents(small, 100)
    write_documents(large, 1000)
    (large / "tokenizer.model").write_bytes((small / "tokenizer.model").read_bytes())
    peaks = []
    for folder in (small, large):
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(folder)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    print(f"peak memory: 100 MB {peaks[0] / 1e6:.0f} MB, 1 GB {peaks[1] / 1e6:.0f} MB")
    assert peaks[1] < 1.1 * peaks[0] and peaks[1] < 1e9
