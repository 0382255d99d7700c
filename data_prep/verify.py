"""Is a dataset whole?  ``python -m data_prep.verify DIR``

Sizes, hashes, the index's arithmetic, the range of the ids, the tokenizer, and every document encoded again
from ``documents.parquet``: a wrong file is named with its first wrong byte. Exit status 1 if
anything is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from conf.errors import InputError
from data_prep.binarize import encode_chunk, read_group, sample
from data_prep.documents import DOCUMENTS
from data_prep.encoder import PlainEncoder, choose, encoder
from data_prep.files import sha256
from data_prep.indexed import BLOCK, index_bytes, read_index
from data_prep.manifest import SPLITS, FileInfo, Manifest
from data_prep.tokenizer import JSON_FILE, MODEL_FILE, Tokenizer
from data_prep.train_tokenizer import to_json

DECODED = 100  # documents per split whose text is compared after decoding


def verify(folder: Path) -> list[str]:
    """Check a dataset folder.

    Returns:
        Sentences, each naming a file, what is wrong and at which byte; empty when the dataset is whole.

    Raises:
        InputError: the folder holds no dataset.
    """
    manifest = Manifest.load(folder)
    problems = [f"{manifest.folder}: {manifest.stale}; build it again"] if manifest.stale else []
    wrong = {path.name: text for path, info in manifest.all_files() if (text := _file(path, info))}
    if MODEL_FILE in wrong or DOCUMENTS in wrong:
        return problems + list(wrong.values())
    tokenizer = Tokenizer.load(manifest.folder)
    problems += _tokenizer(manifest, tokenizer)
    if JSON_FILE in wrong:
        wrong[JSON_FILE] = (
            _difference(manifest.folder / JSON_FILE, [to_json(tokenizer).encode()]) or wrong[JSON_FILE]
        )
    if not manifest.stale:
        kind, _ = choose(
            tokenizer, np.dtype(manifest.dtype), sample(pq.ParquetFile(manifest.folder / DOCUMENTS))
        )
        for split in SPLITS:
            problems += _split(manifest, split, encoder(kind, tokenizer, np.dtype(manifest.dtype)), wrong)
    return problems + list(wrong.values())


def _file(path: Path, info: FileInfo) -> str:
    """What is wrong with a file's size or hash, or ""."""
    if not path.exists():
        return f"{path}: missing"
    size = path.stat().st_size
    if size != info.bytes:
        return f"{path}: byte {min(size, info.bytes)}: {size} bytes, the manifest says {info.bytes}"
    return "" if sha256(path) == info.sha256 else f"{path}: sha256 is not the manifest's"


def _tokenizer(manifest: Manifest, tokenizer: Tokenizer) -> list[str]:
    """Whether the tokenizer is the one that the manifest describes."""
    found = {
        "sha256": hashlib.sha256(tokenizer.model).hexdigest(),
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "pad_id": tokenizer.pad_id,
    }
    path = manifest.folder / MODEL_FILE
    return [
        f"{path}: {key} is {value}, the manifest says {getattr(manifest.tokenizer, key)}"
        for key, value in found.items()
        if value != getattr(manifest.tokenizer, key)
    ]


def _split(manifest: Manifest, split: str, encoder: PlainEncoder, wrong: dict[str, str]) -> list[str]:
    """Compare a split's two files with the documents encoded again; locate the first wrong byte of each."""
    prefix, dtype = manifest.splits[split].prefix, np.dtype(manifest.dtype)
    data, index = manifest.folder / f"{prefix}.bin", manifest.folder / f"{prefix}.idx"
    lengths: list[bytes] = []
    problems: list[str] = []
    # With the hash right, only the documents can be at odds; with it wrong, the place is found.
    if data.exists():
        different = _difference(data, _encoded(manifest, split, encoder, lengths))
        if different:
            wrong[data.name] = different
    expected = index_bytes(np.frombuffer(b"".join(lengths), "<i4"), dtype)
    if index.exists():
        different = _difference(index, [expected])
        if different:
            wrong[index.name] = different
        problems += _index(index, data, dtype, manifest.tokenizer.vocab_size)
    if not (problems or data.name in wrong or index.name in wrong):
        problems += _decoded(manifest, split, encoder.tokenizer)
    return problems


def _encoded(manifest: Manifest, split: str, encoder: PlainEncoder, lengths: list[bytes]) -> Iterator[bytes]:
    """The ids of a split, row group by row group; the documents' lengths go to a list."""
    file = pq.ParquetFile(manifest.folder / DOCUMENTS)
    for group in range(file.num_row_groups):
        chunk = encode_chunk({split: read_group(file, group)[split]}, encoder)
        lengths.append(chunk.of(f"{split}.lengths"))
        yield chunk.of(f"{split}.bin")


def _difference(path: Path, expected: Iterator[bytes] | list[bytes]) -> str:
    """The first byte at which a file differs from what is expected, as a sentence, or ""."""
    place, result = 0, ""
    with path.open("rb") as file:
        for part in expected:
            found = file.read(len(part))
            if not result and found != part:
                shorter = min(len(found), len(part))
                bad = np.flatnonzero(
                    np.frombuffer(found, np.uint8, shorter) != np.frombuffer(part, np.uint8, shorter)
                )
                result = f"{path}: byte {place + (int(bad[0]) if len(bad) else shorter)} is wrong"
            place += len(part)
        if not result and file.read(1):
            result = f"{path}: byte {place}: the file should end here"
    return result


def _index(index: Path, data: Path, dtype: np.dtype, vocab_size: int) -> list[str]:
    """The index's own arithmetic, and the range of the ids."""
    try:
        parsed = read_index(index)
    except ValueError as error:
        return [str(error)]
    count = len(parsed.lengths)
    start = 34
    if (parsed.lengths <= 0).any():
        return [
            f"{index}: byte {start + 4 * int(np.argmax(parsed.lengths <= 0))}: a length that is not positive"
        ]
    pointers = np.concatenate([[0], np.cumsum(parsed.lengths[:-1].astype(np.int64))]) * dtype.itemsize
    if (parsed.pointers != pointers).any():
        first = int(np.argmax(parsed.pointers != pointers))
        return [
            f"{index}: byte {start + 4 * count + 8 * first}: a pointer that does not follow from the lengths"
        ]
    if (strange := parsed.documents != np.arange(len(parsed.documents))).any() or len(strange) != count + 1:
        byte = start + 12 * count + 8 * int(np.argmax(strange))
        return [f"{index}: byte {byte}: the document indices are not 0 … {count}"]
    total = int(parsed.lengths.sum(dtype=np.int64)) * dtype.itemsize
    size = data.stat().st_size if data.exists() else -1
    if total != size:
        return [f"{data}: byte {min(total, size)}: {size} bytes, its index describes {total}"]
    with data.open("rb") as file:
        place = 0
        while block := file.read(BLOCK):
            ids = np.frombuffer(block, dtype)
            if (outside := (ids < 0) | (ids >= vocab_size)).any():
                byte = place + int(np.argmax(outside)) * dtype.itemsize
                return [f"{data}: byte {byte}: an id outside 0 … {vocab_size - 1}"]
            place += len(block)
    return []


def _decoded(manifest: Manifest, split: str, tokenizer: Tokenizer) -> list[str]:
    """Decode some documents and compare them with their text."""
    prefix = manifest.prefix(split)
    index = read_index(prefix.with_name(prefix.name + ".idx"))
    file = pq.ParquetFile(manifest.folder / DOCUMENTS)
    number = 0
    with prefix.with_name(prefix.name + ".bin").open("rb") as data:
        for group in range(file.num_row_groups):
            for text in read_group(file, group)[split]:
                if number >= DECODED:
                    return []
                data.seek(int(index.pointers[number]))
                raw = data.read(int(index.lengths[number]) * index.dtype.itemsize)
                ids = np.frombuffer(raw, index.dtype)
                if ids[-1] != tokenizer.eos_id or tokenizer.decode(ids) != text.decode():
                    place = int(index.pointers[number])
                    return [f"{prefix}.bin: byte {place}: document {number} does not decode to its text"]
                number += 1
    return []


def main() -> int:
    """Print what is wrong with a dataset folder, or that nothing is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a dataset folder, as data/sample")
    try:
        folder = parser.parse_args().folder
        problems = verify(folder)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{folder} is whole: every file, index, id and document was checked.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
