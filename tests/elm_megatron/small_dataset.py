"""A tiny tokenized dataset with its manifest, made without the data room: a noisy walk a model can learn."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from data_prep.manifest import FileInfo, Manifest, Split, TokenizerInfo

VOCAB = 250  # not a multiple of 128, so that the padding is exercised


def _walk(rng: np.random.Generator, n: int) -> np.ndarray:
    steps = rng.choice([1, 2, 5], size=n, p=[0.7, 0.2, 0.1])
    return (4 + np.cumsum(steps) % (VOCAB - 4)).astype(np.uint16)


def write_index(path: Path, lengths: np.ndarray, itemsize: int = 2) -> None:
    """The `.idx` of documents of these lengths, uint16 or int32 ids."""
    pointers = np.concatenate([[0], np.cumsum(lengths[:-1], dtype=np.int64) * itemsize])
    code = np.uint8(8 if itemsize == 2 else 4)
    head = b"MMIDIDX\x00\x00" + np.uint64(1).tobytes() + code.tobytes()
    counts = np.uint64(len(lengths)).tobytes() + np.uint64(len(lengths) + 1).tobytes()
    documents = np.arange(len(lengths) + 1, dtype=np.int64)
    body = lengths.astype(np.int32).tobytes() + pointers.astype(np.int64).tobytes() + documents.tobytes()
    path.write_bytes(head + counts + body)


def _split(folder: Path, name: str, rng: np.random.Generator, tokens: int, documents: int) -> Split:
    lengths = np.full(documents, tokens // documents)
    lengths[-1] += tokens % documents
    ids = np.concatenate([np.append(_walk(rng, n - 1), np.uint16(2)) for n in lengths])
    binary, index = folder / f"small-{name}.bin", folder / f"small-{name}.idx"
    binary.write_bytes(ids.tobytes())
    write_index(index, lengths)
    p = np.bincount(ids) / len(ids)
    entropy = float(-(p[p > 0] * np.log(p[p > 0])).sum())
    files = [FileInfo(f.stat().st_size, hashlib.sha256(f.read_bytes()).hexdigest()) for f in (binary, index)]
    return Split(f"small-{name}", len(lengths), len(ids), binary.stat().st_size, entropy, *files)


def _documents(folder: Path, languages: list[str]) -> FileInfo:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "documents.parquet"
    rows = [("train", "en")] * 3 + [("valid", language) for language in languages]
    pq.write_table(pa.table({"split": [s for s, _ in rows], "language": [name for _, name in rows]}), path)
    return FileInfo(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


def make_dataset(
    folder: Path,
    train_tokens: int = 8000,
    valid_tokens: int = 700,
    languages: list[str] | None = None,
    documents: int = 3,
) -> Path:
    """Write the dataset, each split of so many documents, and return its folder.

    `languages` are those of the three validation documents, if wanted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    splits = {
        "train": _split(folder, "train", rng, train_tokens, documents),
        "valid": _split(folder, "valid", rng, valid_tokens, documents),
    }
    tokenizer = TokenizerInfo("0" * 64, VOCAB, 1, 2, 3)
    files = {"documents.parquet": _documents(folder, languages)} if languages else {}
    works = {"in": 6, "out": 6, "dropped": {}}
    nothing: list[dict] = [{}, {}, {}, {}, {}]  # blocks, redactions, languages, sources, licences
    manifest = Manifest("small", "key", "uint16", tokenizer, splits, files, works, *nothing, [], {})
    (folder / "manifest.json").write_bytes(manifest.dumps())
    return folder


def make_text_dataset(folder: Path, tokenizer: Path, works: list[dict[str, str]]) -> Path:
    """A dataset of given texts, encoded by the tokenizer of another dataset.

    Args:
        tokenizer: folder of that dataset.
        works: `id`, `title`, `split` and `text` of each, in the order of the index.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from data_prep.tokenizer import MODEL_FILE, Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    before = Manifest.load(tokenizer)
    model = tokenizer / MODEL_FILE
    (folder / MODEL_FILE).write_bytes(model.read_bytes())
    encode = Tokenizer.load(tokenizer).encode
    splits = {}
    for name in ("train", "valid"):
        documents = [[*encode(work["text"]), 2] for work in works if work["split"] == name]
        prefix = f"texts-{name}"
        ids = np.array([i for document in documents for i in document], np.uint16)
        (folder / f"{prefix}.bin").write_bytes(ids.tobytes())
        write_index(folder / f"{prefix}.idx", np.array([len(document) for document in documents]))
        infos = [FileInfo.of(folder / f"{prefix}.{kind}") for kind in ("bin", "idx")]
        splits[name] = Split(prefix, len(documents), len(ids), ids.nbytes, 1.0, *infos)
    rows = [
        {"source": "thesis", "language": "en", "sha256": hashlib.sha256(w["text"].encode()).hexdigest(), **w}
        for w in works
    ]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "documents.parquet", row_group_size=4)
    files = {name: FileInfo.of(folder / name) for name in ("documents.parquet", MODEL_FILE)}
    counts = {"in": len(works), "out": len(works), "dropped": {}}
    nothing: list[dict] = [{}, {}, {}, {}, {}]
    manifest = Manifest("texts", "key", "uint16", before.tokenizer, splits, files, counts, *nothing, [], {})
    (folder / "manifest.json").write_bytes(manifest.dumps())
    return folder
