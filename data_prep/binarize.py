"""``documents.parquet`` to ``.bin`` and the index's lengths, over any number of ranks.

The file's row groups are the chunks, cut by text bytes alone. In a round each rank encodes one chunk, tells
the others its sizes and checksums, and writes in place, behind the ranks before it. While the sizes travel it
encodes its chunk of the next round, so that a slow chunk need not hold up the others. A rank's message says
as well that its bytes of the round before are written: rank 0 then journals that round. A build that was
killed goes on after the last journalled round whose bytes are really there, with any number of ranks.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.comm import Comm
from data_prep.documents import DOCUMENTS
from data_prep.encoder import PlainEncoder, choose
from data_prep.encoder import encoder as make_encoder
from data_prep.indexed import BLOCK, InPlace, dtype_for
from data_prep.manifest import SPLITS
from data_prep.split import cut_for_validation
from data_prep.tokenizer import Tokenizer

JOURNAL = "rounds.jsonl"
FILES = tuple(f"{split}.{kind}" for split in SPLITS for kind in ("bin", "lengths"))
SAMPLE_BYTES = 1_000_000  # text on which the fast encoder is compared with SentencePiece


@dataclass
class Progress:
    """Where a build stands: chunks done, and per split the documents and tokens written."""

    groups: int = 0
    documents: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))

    def sizes(self, itemsize: int) -> list[int]:
        """Bytes in each file of `FILES`."""
        return [size for s in SPLITS for size in (self.tokens[s] * itemsize, self.documents[s] * 4)]

    def after(self, sums: np.ndarray, groups: int, itemsize: int) -> Progress:
        """After one more round, of which `sums` has each rank's `Encoded.sums`."""
        added = sums[:, ::2].sum(axis=0).tolist()
        return Progress(
            min(groups, self.groups + len(sums)),
            {s: self.documents[s] + added[2 * n + 1] // 4 for n, s in enumerate(SPLITS)},
            {s: self.tokens[s] + added[2 * n] // itemsize for n, s in enumerate(SPLITS)},
        )


@dataclass(frozen=True)
class Encoded:
    """One chunk, encoded: what goes into each file of `FILES`."""

    data: tuple[bytes, ...]

    def of(self, name: str) -> bytes:
        """What goes into one of the files."""
        return self.data[FILES.index(name)]

    def sums(self) -> np.ndarray:
        """Size and CRC per file, int64 of shape (2·files,)."""
        return np.array([number for data in self.data for number in (len(data), zlib.crc32(data))], np.int64)


def binarize(
    folder: Path, tokenizer: Tokenizer, comm: Comm, report: Callable[[int, int], None]
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
    outputs = [InPlace(folder / name) for name in FILES]
    clock = Clock("read", "encode", "write", "wait")

    def encode(number: int) -> Encoded:
        with clock("read"):
            texts = read_group(file, number) if number < groups else {}
        with clock("encode"):
            return encode_chunk(texts, encoder)

    def written(sums: np.ndarray, now: Progress) -> None:
        if comm.rank == 0:
            append_journal(folder / JOURNAL, now, sums)
            report(now.groups, groups)

    ahead, last = encode(done.groups + comm.rank), None
    while done.groups < groups:
        chunk, arrive = ahead, comm.exchange(ahead.sums())
        ahead = encode(done.groups + comm.size + comm.rank)
        with clock("wait"):
            sums = arrive()
        if last is not None:
            written(*last)
        with clock("write"):
            write(outputs, chunk, done, sums[: comm.rank], dtype.itemsize)
        done = done.after(sums, groups, dtype.itemsize)
        last = sums, done
    for output in outputs:
        output.close(sync=True)
    with clock("wait"):
        comm.gather(None)  # every rank's bytes are on the disk
    if last is not None:
        written(*last)
    return done, clock.seconds, why


def write(outputs: list[InPlace], chunk: Encoded, done: Progress, before: np.ndarray, itemsize: int) -> None:
    """Write a chunk behind the rounds done and behind the chunks of the ranks before this one."""
    starts = done.sizes(itemsize)
    for output, data, start, place in zip(outputs, chunk.data, starts, before[:, ::2].sum(0), strict=True):
        output.write(data, start + int(place))


class Clock:
    """Seconds by stage: ``with clock("read"): …``."""

    def __init__(self, *stages: str) -> None:
        """Start with no time in any stage."""
        self.seconds = dict.fromkeys(stages, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started


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
    data: list[bytes] = []
    for split in SPLITS:
        tokens, lengths = encoder.encode(texts.get(split, []))
        data += tokens.tobytes(), lengths.astype("<i4").tobytes()
    return Encoded(tuple(data))


def append_journal(path: Path, done: Progress, sums: np.ndarray) -> None:
    """Add one round: the state after it, and each chunk's sizes and CRCs."""
    pairs = sums.reshape(len(sums), len(FILES), 2).tolist()
    chunks = [dict(zip(FILES, chunk, strict=True)) for chunk in pairs]
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**asdict(done), "chunks": chunks}) + "\n")


def resume(folder: Path, itemsize: int) -> Progress:
    """The last journalled round whose bytes are there; later bytes and lines are cut off."""
    done, kept = Progress(), []
    path = folder / JOURNAL
    outputs = [folder / name for name in FILES]
    with ExitStack() as stack:
        for output in outputs:
            output.touch(mode=0o600)
        files = {output.name: stack.enter_context(output.open("rb")) for output in outputs}
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []:
            entry = _entry(line)
            if entry is None or not all(
                _crc(files[name], size) == crc
                for chunk in entry["chunks"]
                for name, (size, crc) in chunk.items()
            ):
                break
            kept.append(line)
            done = Progress(entry["groups"], entry["documents"], entry["tokens"])
    path.write_text("".join(kept), encoding="utf-8")
    for output, size in zip(outputs, done.sizes(itemsize), strict=True):
        os.truncate(output, size)
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
