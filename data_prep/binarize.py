"""``documents.parquet`` to ``.bin`` and the index's lengths, over any number of ranks.

The file's row groups are the chunks, cut by text bytes alone. In a round each rank encodes one chunk, an
exclusive scan over the ranks gives its offsets, and it writes in place. Rank 0 then journals the round: how
much is written, and the CRC of every chunk. A build that was killed goes on after the last journalled round
whose bytes are really there, with any number of ranks.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.comm import Alone
from data_prep.documents import DOCUMENTS, cut_for_validation
from data_prep.encoder import PlainEncoder, choose
from data_prep.encoder import encoder as make_encoder
from data_prep.indexed import BLOCK, InPlace, dtype_for
from data_prep.manifest import SPLITS
from data_prep.tokenizer import Tokenizer

JOURNAL = "rounds.jsonl"
SAMPLE_BYTES = 1_000_000  # text on which the fast encoder is compared with SentencePiece


@dataclass
class Progress:
    """Where a build stands: chunks done, and per split the documents and tokens written."""

    groups: int = 0
    documents: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))


@dataclass(frozen=True)
class Encoded:
    """One chunk, encoded: per split the ids as bytes and the documents' lengths."""

    ids: dict[str, bytes]
    lengths: dict[str, bytes]

    def sums(self) -> dict[str, tuple[int, int]]:
        """Size and CRC of what goes into each output file."""
        named = {f"{split}.{kind}": data[split] for split in SPLITS for kind, data in self._kinds()}
        return {name: (len(data), zlib.crc32(data)) for name, data in named.items()}

    def _kinds(self) -> tuple[tuple[str, dict[str, bytes]], ...]:
        return ("bin", self.ids), ("lengths", self.lengths)


def binarize(
    folder: Path, tokenizer: Tokenizer, comm: Alone, report: Callable[[int, int], None]
) -> tuple[Progress, dict[str, float], str]:
    """Write ``<split>.bin`` and ``<split>.lengths`` (int32) in a build folder.

    Args:
        folder: holds ``documents.parquet``.
        tokenizer: of the build.
        comm: the ranks; each must call this.
        report: told (chunks done, chunks) after each round.

    Returns:
        The final progress, this rank's seconds by stage, and why the fast encoder was not used, or "".
    """
    file = pq.ParquetFile(folder / DOCUMENTS)
    groups = file.num_row_groups
    dtype = dtype_for(tokenizer.vocab_size)
    kind, why = comm.bcast(choose(tokenizer, dtype, sample(file)) if comm.rank == 0 else None)
    encoder = make_encoder(kind, tokenizer, dtype)
    done: Progress = comm.bcast(resume(folder, dtype.itemsize) if comm.rank == 0 else None)
    outputs = {split: Output(folder, split) for split in SPLITS}
    seconds = {"read": 0.0, "encode": 0.0, "write": 0.0, "wait": 0.0}
    while done.groups < groups:
        started = time.perf_counter()
        number = done.groups + comm.rank
        texts = read_group(file, number) if number < groups else {}
        read = time.perf_counter()
        chunk = encode_chunk(texts, encoder)
        encoded = time.perf_counter()
        counts = [len(chunk.lengths[split]) // 4 for split in SPLITS]
        counts += [len(chunk.ids[split]) // dtype.itemsize for split in SPLITS]
        before, total = comm.exscan(np.array(counts, np.int64))
        agreed = time.perf_counter()
        for place, split in enumerate(SPLITS):
            outputs[split].ids.write(
                chunk.ids[split], (done.tokens[split] + int(before[2 + place])) * dtype.itemsize
            )
            outputs[split].lengths.write(
                chunk.lengths[split], (done.documents[split] + int(before[place])) * 4
            )
        wrote = time.perf_counter()
        every = comm.gather(chunk.sums())
        done.groups = min(groups, done.groups + comm.size)
        for place, split in enumerate(SPLITS):
            done.documents[split] += int(total[place])
            done.tokens[split] += int(total[2 + place])
        if comm.rank == 0:
            append_journal(folder / JOURNAL, done, every)
            report(done.groups, groups)
        seconds["read"] += read - started
        seconds["encode"] += encoded - read
        seconds["write"] += wrote - agreed
        seconds["wait"] += agreed - encoded + time.perf_counter() - wrote
    for output in outputs.values():
        output.close()
    comm.gather(None)  # every rank's bytes are on the disk
    return done, seconds, why


class Output:
    """A split's two files while they are written."""

    def __init__(self, folder: Path, split: str) -> None:
        """Open ``<split>.bin`` and ``<split>.lengths``."""
        self.ids = InPlace(folder / f"{split}.bin")
        self.lengths = InPlace(folder / f"{split}.lengths")

    def close(self) -> None:
        """Wait for the disk and close."""
        self.ids.close(sync=True)
        self.lengths.close(sync=True)


def sample(file: pq.ParquetFile) -> list[str]:
    """The starts of documents from all over the file, some `SAMPLE_BYTES` together."""
    texts: list[str] = []
    groups = range(0, file.num_row_groups, max(1, file.num_row_groups // 8))
    for group in groups:
        column = file.read_row_group(group, columns=["text"])["text"]
        step = max(1, len(column) // 16)
        share = SAMPLE_BYTES // len(groups) // min(16, len(column))
        texts += [str(column[row])[:share] for row in range(0, len(column), step)]
    return texts


def read_group(file: pq.ParquetFile, number: int) -> dict[str, list[bytes]]:
    """The texts of a row group's documents by split, in order; the split ``both`` is cut in two."""
    table = file.read_row_group(number, columns=["split", "text"], use_threads=False)
    texts: dict[str, list[bytes]] = {split: [] for split in SPLITS}
    rows = zip(table["split"].to_pylist(), table["text"].cast(pa.large_binary()).to_pylist(), strict=True)
    for split, text in rows:
        if split == "both":
            for name, part in zip(SPLITS, cut_for_validation(text.decode()), strict=True):
                texts[name].append(part.encode())
        else:
            texts[split].append(text)
    return texts


def encode_chunk(texts: dict[str, list[bytes]], encoder: PlainEncoder) -> Encoded:
    """Encode documents in order, each closed by EOS."""
    ids, lengths = {}, {}
    for split in SPLITS:
        tokens, counts = encoder.encode(texts.get(split, []))
        ids[split], lengths[split] = tokens.tobytes(), counts.astype("<i4").tobytes()
    return Encoded(ids, lengths)


def append_journal(path: Path, done: Progress, sums: list[dict] | None) -> None:
    """Add one round: the state after it, and each chunk's sizes and CRCs."""
    with path.open("a") as file:
        file.write(json.dumps({**asdict(done), "chunks": sums}) + "\n")


def resume(folder: Path, itemsize: int) -> Progress:
    """The last journalled round whose bytes are there; later bytes and lines are cut off."""
    done, kept = Progress(), []
    path = folder / JOURNAL
    outputs = [folder / f"{split}.{kind}" for split in SPLITS for kind in ("bin", "lengths")]
    with ExitStack() as stack:
        for output in outputs:
            output.touch(mode=0o600)
        files = {output.name: stack.enter_context(output.open("rb")) for output in outputs}
        for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
            entry = _entry(line)
            if entry is None or not all(
                _crc(files[name], size) == crc
                for chunk in entry["chunks"]
                for name, (size, crc) in chunk.items()
            ):
                break
            kept.append(line)
            done = Progress(entry["groups"], entry["documents"], entry["tokens"])
    path.write_text("".join(kept))
    for split in SPLITS:
        cut = {"bin": done.tokens[split] * itemsize, "lengths": done.documents[split] * 4}
        for kind, size in cut.items():
            os.truncate(folder / f"{split}.{kind}", size)
    return done


def _entry(line: str) -> dict | None:
    """One line of the journal, or None when it was torn."""
    try:
        return json.loads(line) if line.endswith("\n") else None
    except ValueError:
        return None


def _crc(file: BinaryIO, size: int) -> int:
    """CRC of the next `size` bytes, or -1 when there are fewer."""
    crc = 0
    while size:
        data = file.read(min(size, BLOCK))
        if not data:
            return -1
        crc, size = zlib.crc32(data, crc), size - len(data)
    return crc
