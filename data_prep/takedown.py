"""Taking a work down: ``python launch/preprocess.py corpus=eur remove=<id>``.

An id that the command line cannot hold is given in a file, or by its number in the dataset's report.

Its raw file and its clean text are removed, tombstones keep it out of every later harvest and build, and each
dataset that holds it is marked to be built again. Datasets, runs and models made from it are listed: what has
learnt from a work cannot be made to forget it by a program that deletes files, so people must decide.
"""

from __future__ import annotations

import datetime
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf.errors import InputError
from conf.schema.preprocess import PACKAGE, CorpusConfig, PreprocessConfig
from data_prep import files, raw, tombstones
from data_prep.account import OPT_OUTS, Account
from data_prep.bundle.write import is_of_provenance
from data_prep.clean import BLOCK_BREAK
from data_prep.documents import DOCUMENTS, UNKNOWN
from data_prep.journal import HARVESTED, read_journal
from data_prep.lock import held as locked
from data_prep.manifest import FILE as MANIFEST
from data_prep.manifest import FileInfo, Manifest, builds, lineage
from data_prep.report import write_report
from data_prep.works_page import write_page

FROM_FILE, BY_NUMBER = "file:", "number:"
TAKEN_DOWN = "work:taken_down"  # the reason of its blocks
SMALL = 1 << 20  # larger files are no run record, model card or configuration


@dataclass
class Removal:
    """What a take-down found and did; all paths absolute.

    Attributes:
        signatures: by the sha256 of the work's files, "" where its text could not be had.
        skipped: what could not be searched, and why.
    """

    id: str
    signatures: dict[str, str] = field(default_factory=dict)
    deleted: list[Path] = field(default_factory=list)
    datasets: list[Path] = field(default_factory=list)
    derived: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The account of it, for a person."""
        yield f"{self.id} is taken down; later harvests and builds leave it out."
        yield from (f"deleted           {path}" for path in self.deleted)
        yield from (f"to build again    {path}, whose .bin holds it until then" for path in self.datasets)
        yield from (f"learnt from it    {path}" for path in self.derived)
        yield from (f"not searched      {reason}" for reason in self.skipped)
        if not self.derived:
            yield "no run or model names a build that held it"


def removals(config: PreprocessConfig) -> list[str]:
    """The ids that ``remove`` means: itself, the lines of a file, or the work with a number in the report.

    Raises:
        InputError: the file cannot be read or has no id; or there is no such number, or the report is of a
            dataset that has changed since.
    """
    return names_given("remove", str(config.remove), config.data_dir())


def names_given(key: str, value: str, data_dir: Path) -> list[str]:
    """The names that a setting gives: see `removals`."""
    if value.startswith(FROM_FILE):
        return _ids_of_file(key, value)
    if value.startswith(BY_NUMBER):
        return [_id_of_number(key, value, data_dir)]
    return [value]


def raw_ids(corpus: CorpusConfig) -> Iterator[str]:
    """The ids of the files of a corpus folder that no harvest fetched."""
    root = corpus.folder()
    for path, _ in raw.files(root) if root.is_dir() else ():
        suffix = Path(path).suffix
        if suffix.lower().removeprefix(".") in corpus.formats and not path.startswith(HARVESTED):
            yield path.removesuffix(suffix)


def _ids_of_file(key: str, value: str) -> list[str]:
    path = Path(value.removeprefix(FROM_FILE)).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{key}={value}: {path} cannot be read ({reason}).") from error
    ids = [line.removesuffix("\r") for line in lines if line.strip()]
    if not ids:
        raise InputError(f"{key}={value}: {path} has no id; give one on each line.")
    return ids


def _id_of_number(key: str, value: str, data_dir: Path) -> str:
    manifest = Manifest.load(data_dir)
    if manifest.stale:
        raise InputError(
            f"{key}={value}: {manifest.stale} since the report was made, so its numbers are no longer "
            "right; build the dataset again, or give the id."
        )
    ids = pq.read_table(data_dir / DOCUMENTS, columns=["id"])["id"]
    number = value.removeprefix(BY_NUMBER)
    if not number.isdecimal() or not 1 <= int(number) <= len(ids):
        raise InputError(f"{key}={value}: must be a number of the report of {data_dir}, 1 to {len(ids)}.")
    return ids[int(number) - 1].as_py()


def take_down(config: PreprocessConfig) -> Removal:
    """Remove the work ``config.remove``; killed at any point, the same call does what is left.

    Raises:
        InputError: no raw file, dataset or tombstone knows the id, or another process works in the corpus
            folder or in one of the datasets.
    """
    removal, root = Removal(str(config.remove)), config.corpus.folder()
    ours = root.is_dir() and not config.corpus.path.startswith(PACKAGE)  # or the code's own, never changed
    with ExitStack() as stack:
        if ours:
            stack.enter_context(locked(root))
        paths, known = _find_raw(root, removal, config)
        removal.datasets = held = _find_datasets(config.data_dir().parent, removal)
        if not (paths or held or known):
            raise InputError(
                f"remove={removal.id}: no work of that id in {root} or in {config.data_dir().parent}"
                + "".join(f"; not searched: {reason.rstrip('.')}" for reason in removal.skipped)
                + "."
            )
        datasets = sorted({*held, config.data_dir()}) if config.data_dir().is_dir() else held
        for folder in datasets:
            if not (ours and folder.samefile(root)):
                stack.enter_context(locked(folder))
        manifests: set[str] = set()
        for folder in datasets:
            manifests |= _bury(folder, removal, builds(folder) if folder in held else set())
        if ours:
            manifests |= _bury(root, removal, manifests)
            for path in paths:
                (root / path).unlink()
                removal.deleted.append(root / path)
        for folder in datasets:
            for work in folder.glob(".build-*"):
                shutil.rmtree(work)
        for folder in held:
            _clear_dataset(folder, removal)
    removal.derived = sorted(_derived(Path(config.runs_dir).absolute(), manifests, removal))
    return removal


def _find_raw(root: Path, removal: Removal, config: PreprocessConfig) -> tuple[list[str], bool]:
    """The work's raw files, and whether a journal or a tombstone knows it; their hashes go into `removal`."""
    entry = read_journal(root).get(removal.id, {}) if root.is_dir() else {}
    stones = [item for folder in (root, config.data_dir()) for item in _stones(folder, removal)]
    for item in (entry, *stones):
        if item.get("sha256") and not removal.signatures.get(item["sha256"]):
            removal.signatures[item["sha256"]] = item.get("minhash") or ""
    paths = [path for path, _ in _raw_files(root, removal.id)] if root.is_dir() else []
    for path in paths:
        data = (root / path).read_bytes()
        removal.signatures[hashlib.sha256(data).hexdigest()] = tombstones.signature_of_file(
            path, data, config
        )
    return paths, bool(entry or stones)


def _find_datasets(parent: Path, removal: Removal) -> list[Path]:
    """The datasets beside each other whose text or ``.bin`` holds the work; what is no dataset is skipped."""
    held = []
    for path in sorted(parent.glob(f"*/{MANIFEST}")):
        try:
            manifest = Manifest.load(path.parent)
            if _holds(path.parent, removal) or _held_when_built(manifest, removal):
                held.append(path.parent)
        except InputError as error:
            removal.skipped.append(str(error))
        except (OSError, ValueError, KeyError) as error:
            removal.skipped.append(f"{path.parent}: {' '.join(str(error).split())}")
    return held


def _raw_files(root: Path, identifier: str) -> Iterator[tuple[str, str]]:
    """(path, id) of the raw files with an id, whatever their type."""
    entry = read_journal(root).get(identifier, {})
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


def _held_when_built(manifest: Manifest, removal: Removal) -> bool:
    """Whether a tombstone says that the build which stands there held the work, whose text may be gone."""
    before = lineage(manifest.folder)
    build = before[-1] if manifest.stale and before else manifest.sha256
    return any(build in item.get("manifests", []) for item in _stones(manifest.folder, removal))


def _stones(folder: Path, removal: Removal) -> list[dict]:
    """The work's tombstones in a folder."""
    return [entry for entry in tombstones.read(folder) if entry["id"] == removal.id]


def _bury(folder: Path, removal: Removal, manifests: set[str]) -> set[str]:
    """Write the tombstones that are not there yet, with the manifests of the builds that may hold the work.

    Returns:
        Those manifests and the ones that earlier tombstones of the work name.
    """
    known: dict[str | None, set[str]] = {}  # manifests by the sha256 of the work's file
    for entry in _stones(folder, removal):
        known.setdefault(entry.get("sha256"), set()).update(entry.get("manifests", []))
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
        if digest not in known or not manifests <= known[digest]
    ]
    if new:
        tombstones.add(folder, new)
    return manifests.union(*known.values())


def _clear_dataset(folder: Path, removal: Removal) -> None:
    """Mark the dataset to be built again, then take the clean text out of ``documents.parquet``.

    In this order, so that no moment finds the text gone and the dataset taken for whole. Manifest, report and
    page follow; the counts of works and blocks are taken anew from what is left.
    """
    marked = replace(Manifest.load(folder), stale="a work was taken down")
    files.write(folder / MANIFEST, marked.dumps())
    path = folder / DOCUMENTS
    source = pq.ParquetFile(path)
    left = Account()
    with (
        files.replacing(path) as file,
        pq.ParquetWriter(file, source.schema_arrow, compression="zstd") as writer,
    ):
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            gone = pc.or_(
                pc.equal(table["id"], removal.id),
                pc.is_in(table["sha256"], value_set=pa.array(sorted(removal.signatures), pa.string())),
            )
            table = table.filter(pc.invert(gone))
            writer.write_table(table)
            _count(table, left)
    named = {**marked.files, DOCUMENTS: FileInfo.of(path)}
    cleared = _recounted(replace(marked, files=named), left)
    write_report(cleared, folder)
    write_page(cleared.corpus, cleared.dumps(), folder, folder)
    files.write(folder / MANIFEST, cleared.dumps())


def _count(table: pa.Table, left: Account) -> None:
    """Count the works and blocks of some documents."""
    left.works_out += len(table)
    breaks = pc.sum(pc.count_substring(table["text"], BLOCK_BREAK)).as_py() or 0
    left.blocks_out += len(table) + breaks
    groups = {"language": left.languages, "source": left.sources, "licence": left.licences}
    groups |= {"access": left.access, "rights_basis": left.rights_basis, "opt_out": left.opt_out}
    for name, counts in groups.items():
        values = table[name] if name in table.column_names else pa.nulls(len(table), pa.string())
        for entry in pc.value_counts(pc.fill_null(values, UNKNOWN)).to_pylist():
            counts[entry["values"]] += entry["counts"]


def _recounted(manifest: Manifest, left: Account) -> Manifest:
    """A manifest whose works are those that are left; what else came in was taken down."""
    others = {key: count for key, count in manifest.works["dropped"].items() if key != "taken_down"}
    gone = manifest.works["in"] - left.works_out - sum(others.values())
    gone_blocks = {key: count for key, count in manifest.blocks["dropped"].items() if key != TAKEN_DOWN}
    blocks = manifest.blocks["in"] - left.blocks_out - sum(gone_blocks.values())
    ways = {key: count for key, count in manifest.opt_out.items() if key in OPT_OUTS.values()}
    return replace(
        manifest,
        works={**manifest.works, "out": left.works_out, "dropped": {**others, "taken_down": gone}},
        blocks={**manifest.blocks, "out": left.blocks_out, "dropped": {**gone_blocks, TAKEN_DOWN: blocks}},
        languages=dict(left.languages),
        sources=dict(left.sources),
        licences=dict(left.licences),
        access=dict(left.access),
        rights_basis=dict(left.rights_basis),
        opt_out={**left.opt_out, **ways},
    )


def _derived(runs: Path, manifests: set[str], removal: Removal) -> set[Path]:
    """Folders below `runs` whose records or model cards name one of the manifests."""
    found = set()
    for pattern in ("run.json", "README.md", "lineage.json"):
        for path in runs.rglob(pattern):
            if is_of_provenance(path.parent):
                continue
            try:
                small = path.is_file() and path.stat().st_size <= SMALL
                text = path.read_text(encoding="utf-8", errors="replace") if small else ""
            except OSError as error:
                removal.skipped.append(f"{path}: {error.strerror}")
                continue
            if any(digest in text for digest in manifests):
                found.add(path.parent)
    return found
