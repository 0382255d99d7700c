"""Taking a work down: ``python launch/preprocess.py corpus=eur remove=<id>``.

Its raw file and its clean text are removed, tombstones keep it out of every later harvest and build, and each
dataset that holds it is marked to be built again. Datasets, runs and models made from it are listed: what has
learnt from a work cannot be made to forget it by a program that deletes files, so people must decide.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep import tombstones
from data_prep.config import PACKAGE, PreprocessConfig
from data_prep.errors import InputError
from data_prep.lock import held as locked
from data_prep.manifest import FILE as MANIFEST
from data_prep.manifest import LINEAGE, FileInfo, Manifest

SMALL = 1 << 20  # larger files are no run record, model card or configuration


@dataclass
class Removal:
    """What a take-down found and did; all paths absolute.

    Attributes:
        signatures: by the sha256 of the work's files, "" where its text could not be had.
    """

    id: str
    signatures: dict[str, str] = field(default_factory=dict)
    deleted: list[Path] = field(default_factory=list)
    datasets: list[Path] = field(default_factory=list)
    derived: list[Path] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The account of it, for a person."""
        yield f"{self.id} is taken down; later harvests and builds leave it out."
        yield from (f"deleted           {path}" for path in self.deleted)
        yield from (f"to build again    {path}, whose .bin holds it until then" for path in self.datasets)
        yield from (f"learnt from it    {path}" for path in self.derived)
        if not self.derived:
            yield "no run or model has learnt from it"


def take_down(config: PreprocessConfig) -> Removal:
    """Remove the work ``config.remove``.

    Raises:
        InputError: no raw file, dataset or tombstone knows the id, or one of the datasets is being built.
    """
    from data_prep import raw

    removal = Removal(str(config.remove))
    root = config.corpus.folder()
    files = [path for path, _ in _raw_files(root, removal.id)] if root.is_dir() else []
    for path in files:
        data = (root / path).read_bytes()
        removal.signatures[hashlib.sha256(data).hexdigest()] = _signature(path, data, config)
    entry = raw.read_journal(root).get(removal.id, {}) if root.is_dir() else {}
    if entry.get("sha256"):
        removal.signatures.setdefault(entry["sha256"], "")
    folders = [path.parent for path in sorted(config.data_dir().parent.glob(f"*/{MANIFEST}"))]
    held = [folder for folder in folders if _holds(folder, removal)]
    if not (files or held or entry or removal.id in tombstones.load(config).names):
        raise InputError(
            f"remove={removal.id}: no work of that id in {root} or in {config.data_dir().parent}."
        )
    datasets = sorted({*held, config.data_dir()}) if config.data_dir().is_dir() else held
    with ExitStack() as stack:
        for folder in datasets:
            stack.enter_context(locked(folder))
        manifests: set[str] = set()
        for folder in datasets:
            before = {Manifest.load(folder).sha256, *_earlier(folder)} if folder in held else set()
            manifests |= _bury(folder, removal, before)
        if not config.corpus.path.startswith(PACKAGE) and root.is_dir():
            _bury(root, removal, manifests)
            for path in files:
                (root / path).unlink()
                removal.deleted.append(root / path)
        for folder in held:
            _clear_dataset(folder, removal)
    removal.datasets = held
    removal.derived = sorted(_derived(Path(config.runs_dir).absolute(), manifests))
    return removal


def _signature(path: str, data: bytes, config: PreprocessConfig) -> str:
    """The signature of a raw file's cleaned text, or "" where there is none."""
    from data_prep.clean import clean
    from data_prep.extract import blocks_of
    from data_prep.raw import MEGABYTE, Unreadable

    try:
        blocks = clean(blocks_of(path, data, config.corpus.max_text_mb * MEGABYTE), config.clean).blocks
    except Unreadable:
        return ""
    return tombstones.signature(blocks) if blocks else ""


def _raw_files(root: Path, identifier: str) -> Iterator[tuple[str, str]]:
    """(path, id) of the raw files with an id, whatever their type."""
    from data_prep import raw

    entry = raw.read_journal(root).get(identifier, {})
    if entry.get("file"):
        path = root / entry["file"]
        if path.resolve().is_relative_to(root.resolve()) and path.is_file():
            yield entry["file"], identifier
    for path, _ in raw.files(root):
        if path in raw.OWN_FILES:
            continue
        if str(Path(path).with_suffix("")) == identifier and Path(path).suffix and (root / path).is_file():
            yield path, identifier


def _holds(folder: Path, removal: Removal) -> bool:
    """Whether a dataset's documents have the id, or the same file under another id."""
    import pyarrow.parquet as pq

    from data_prep.clean import BLOCK_BREAK
    from data_prep.documents import DOCUMENTS

    source, found = pq.ParquetFile(folder / DOCUMENTS), False
    for group in range(source.num_row_groups):
        names = source.read_row_group(group, columns=["id", "sha256"]).to_pylist()
        for place, row in enumerate(names):
            if row["id"] == removal.id or row["sha256"] in removal.signatures:
                found = True
                if not removal.signatures.get(row["sha256"]):
                    text = source.read_row_group(group, columns=["text"])["text"][place].as_py()
                    removal.signatures[row["sha256"]] = tombstones.signature(text.split(BLOCK_BREAK))
    return found


def _bury(folder: Path, removal: Removal, manifests: set[str]) -> set[str]:
    """Write the tombstones that are not there yet, with the manifests of the builds that may hold the work.

    Returns:
        Those manifests and the ones that earlier tombstones of the work name.
    """
    known = [entry for entry in tombstones.read(folder) if entry.get("id") == removal.id]
    for entry in known:
        if entry.get("sha256") and not removal.signatures.get(entry["sha256"]):
            removal.signatures[entry["sha256"]] = entry.get("minhash", "")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    new = [
        {
            "id": removal.id,
            "sha256": digest,
            "date": today,
            "manifests": sorted(manifests),
            "minhash": removal.signatures.get(digest, ""),
        }
        for digest in sorted(removal.signatures) or [None]
        if manifests or digest not in {entry.get("sha256") for entry in known}
    ]
    tombstones.add(folder, new)
    return manifests.union(*(entry.get("manifests", []) for entry in known))


def _clear_dataset(folder: Path, removal: Removal) -> None:
    """Take the clean text out of ``documents.parquet``, drop half-made builds, and mark the dataset."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from data_prep.documents import DOCUMENTS

    path = folder / DOCUMENTS
    source = pq.ParquetFile(path)
    temporary = path.with_suffix(".tmp")
    with pq.ParquetWriter(temporary, source.schema_arrow, compression="zstd") as writer:
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            gone = pc.or_(
                pc.equal(table["id"], removal.id),
                pc.is_in(table["sha256"], value_set=_strings(set(removal.signatures))),
            )
            writer.write_table(table.filter(pc.invert(gone)))
    temporary.replace(path)
    for work in folder.glob(".build-*"):
        shutil.rmtree(work)
    manifest = Manifest.load(folder)
    info = FileInfo(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    changed = replace(manifest, files={**manifest.files, DOCUMENTS: info}, stale="a work was taken down")
    temporary = folder / f"{MANIFEST}.tmp"
    temporary.write_bytes(changed.dumps())
    temporary.replace(folder / MANIFEST)


def _strings(values: set[str]):
    import pyarrow as pa

    return pa.array(sorted(values), pa.string())


def _earlier(folder: Path) -> set[str]:
    """The manifests of earlier builds of a dataset; what they held is not known, so they count."""
    path = folder / LINEAGE
    return (
        {json.loads(line)["manifest"] for line in path.read_text().splitlines()} if path.exists() else set()
    )


def _derived(runs: Path, manifests: set[str]) -> set[Path]:
    """Folders below `runs` whose records or model cards name one of the manifests."""
    found = set()
    for pattern in ("run.json", "README.md", "lineage.json"):
        for path in runs.rglob(pattern):
            if path.is_file() and path.stat().st_size <= SMALL:
                text = path.read_text(encoding="utf-8", errors="replace")
                if any(digest in text for digest in manifests):
                    found.add(path.parent)
    return found
