"""Works whose authors said no: ``corpus.opt_out=<file>``, a list of ids, addresses, DOIs or handles.

One entry a line; ``#`` begins a comment. Tables are read too (CSV, TSV, XLSX): a column whose heading names
ids or addresses, else the first column and whatever is an address. An entry that matches nothing is named.

An opted-out work leaves the dataset with the reason ``opt_out``, and a copy of it with ``opt_out_copy``. What
earlier builds held of it is kept in ``opted_out.jsonl`` beside the dataset, for the notice.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf.errors import InputError
from conf.schema.preprocess import CorpusConfig
from data_prep import files, raw
from data_prep.account import OPT_OUTS
from data_prep.documents import DOCUMENTS, DROPPED
from data_prep.journal import read_journal
from data_prep.spellings import MOST_NAMED, Index, entry_keys, is_address, page_address, sure_keys

RECORD, LIST = "opted_out.jsonl", "opt_out.tsv"
REASON = "opt_out"
LONGEST_ROW = 10_000  # characters of a line that may be a row of a table
NO, UNKNOWN = "no", "unknown"
KEY = "corpus.opt_out"
NAMES = re.compile(
    r"(?:work|thesis|record|document|scriptie|werk)?[ _-]*"
    r"(?:id|ids|identifier|ur[li]|link|address|adres|doi|handle|hdl|oai|file|bestand|nummer|number)s?"
    r"(?:[ _-]*(?:of|van)?[ _-]*(?:work|thesis|document|scriptie|werk))?",
    re.I,
)
HEADINGS = re.compile(r"(?:title|titel|name|naam|date|datum|reason|reden|remarks?|opmerking(?:en)?)", re.I)


@dataclass(frozen=True)
class Entry:
    """One entry of a list.

    Attributes:
        line: its number in the file, from 1.
        text: as it is named to people.
        forms: what it may be read as, the whole line first.
    """

    line: int
    text: str
    forms: tuple[str, ...]


@dataclass
class OptOuts:
    """What a list means in a corpus.

    Attributes:
        works: the line of the entry by the id of the work that it opts out.
        found: (entry, ids) of the entries that match.
        unmatched: (entry, ids of which it could mean one) of those that do not.
    """

    works: dict[str, int] = field(default_factory=dict)
    found: list[tuple[Entry, list[str]]] = field(default_factory=list)
    unmatched: list[tuple[Entry, list[str]]] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The account of it, for a person."""
        total = len(self.found) + len(self.unmatched)
        yield f"{KEY}: entries {total}, matched {len(self.found)}, works left out {len(self.works)}"
        if self.unmatched:
            named = [_named(entry, several) for entry, several in self.unmatched[:MOST_NAMED]]
            more = len(self.unmatched) - len(named)
            rest = f", and {more} more, which {LIST} of the dataset lists" if more > 0 else ""
            yield f"{KEY}: matching no work: {', '.join(named)}{rest}"


def _named(entry: Entry, several: list[str]) -> str:
    could = f" (it could mean {' or '.join(several[:MOST_NAMED])})" if several else ""
    return f"{entry.text!r} in line {entry.line}{could}"


def find(corpus: CorpusConfig, scan: raw.Scan, taken_down: frozenset[str] = frozenset()) -> OptOuts:
    """Match the list of a corpus with its works; without a list nothing is found.

    Raises:
        InputError: the file cannot be read.
    """
    if corpus.opt_out is None:
        return OptOuts()
    index = index_of(corpus, [*scan.ids(), *(name for name in taken_down if not _is_digest(name))])
    return match(read(corpus.opt_out), index)


def _is_digest(name: str) -> bool:
    return bool(re.fullmatch(r"[0-9a-f]{64}", name))


def index_of(corpus: CorpusConfig, ids: Iterable[str] = ()) -> Index:
    """The works of a corpus by all their names.

    Args:
        corpus: its folder's journal is read, and its sources.
        ids: of works that have no record there.
    """
    root = corpus.folder()
    journal = read_journal(root) if root.is_dir() else {}
    pages = {source.name: source.url for source in corpus.harvest.sources if source.kind == "pages"}
    index = Index()
    for identifier in dict.fromkeys([*journal, *ids]):
        entry = journal.get(identifier)
        index.add(identifier, names_of(identifier, entry or {}, pages), harvested=entry is not None)
    return index


def listed(corpus: CorpusConfig) -> Callable[[str, list[str]], bool]:
    """Whether a harvested work is on the list of a corpus, by its id and its other names.

    Raises:
        InputError: the file cannot be read.
    """
    entries = read(corpus.opt_out) if corpus.opt_out is not None else []
    keys = {key for entry in entries for form in entry.forms for key in entry_keys(form)}
    pages = {source.name: source.url for source in corpus.harvest.sources if source.kind == "pages"}

    def is_listed(identifier: str, names: list[str]) -> bool:
        every = [*names, *page_address(identifier, pages)]
        return bool(keys) and any(key in keys for key in sure_keys(identifier, every, harvested=True))

    return is_listed


def names_of(identifier: str, record: dict, pages: dict[str, str]) -> list[str]:
    """The addresses, DOIs and handles that a record has of its work."""
    named = [str(item) for item in record.get("addresses") or []]
    return [*filter(None, [record.get("url"), *named]), *page_address(identifier, pages)]


def match(entries: Iterable[Entry], index: Index) -> OptOuts:
    """Find the works of entries; repeated entries count once."""
    result, seen = OptOuts(), set()
    for entry in entries:
        if entry.text in seen:
            continue
        seen.add(entry.text)
        ids = next(filter(None, map(index.find, entry.forms)), set())
        if ids:
            result.found.append((entry, sorted(ids)))
            for identifier in ids:
                result.works.setdefault(identifier, entry.line)
        else:
            several = next(filter(None, map(index.several, entry.forms)), set())
            result.unmatched.append((entry, sorted(several)))
    return result


def read(name: str) -> list[Entry]:
    """The entries of a list.

    Raises:
        InputError: the file is missing, is a folder, cannot be read, or is no text and no spreadsheet.
    """
    path = Path(name).expanduser()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{KEY}={name}: {path} cannot be read ({error.strerror}).") from error
    if data[:4] == b"PK\x03\x04":
        return [entry for rows in _sheets(name, data) for entry in _of_table(rows)]
    text = _text(name, data)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
        try:
            return list(_of_table((rows.line_num, row) for row in rows))
        except csv.Error as error:
            raise InputError(f"{KEY}={name}: line {rows.line_num} is no row of a table ({error}).") from error
    return list(_of_lines(text))


def _text(name: str, data: bytes) -> str:
    """The text of a list in UTF-8 or UTF-16 with its mark, else in Windows-1252."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    if b"\0" in data:
        raise InputError(f"{KEY}={name}: holds NUL bytes; give a text file, CSV, TSV or XLSX.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _of_lines(text: str) -> Iterator[Entry]:
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        whole = line.strip().strip("\ufeff\u200b")
        if not whole:
            continue
        if whole.startswith("#"):
            continue
        plain = re.split(r"\s#(?:\s|$)", whole)[0].strip()
        is_row = len(plain) <= LONGEST_ROW
        cells = next(csv.reader([plain], delimiter=_delimiter(plain)), []) if is_row else []
        named = _named_cells(cells) if len(cells) > 1 else []
        words = [word for word in plain.split() if is_address(word)]
        forms = tuple(dict.fromkeys(filter(None, [whole, plain, *named, *words])))
        if number == 1 and cells and all(_is_heading(cell) for cell in cells):
            continue
        yield Entry(number, plain, forms)


def _of_table(rows: Iterable[tuple[int, list[str]]]) -> Iterator[Entry]:
    """Entries of a table: of the columns whose headings name ids or addresses, else see `_named_cells`.

    A row of headings may have other rows above it.
    """
    columns: list[int] | None = None
    first = True
    for number, row in rows:
        cells = [str(cell).strip().strip("\ufeff") for cell in row]
        if not any(cells) or next(filter(None, cells)).startswith("#"):
            continue
        filled = [cell for cell in cells if cell]
        named = [place for place, cell in enumerate(cells) if NAMES.fullmatch(cell)]
        headings = all(map(_is_heading, filled)) and (first or len(filled) > 1)
        if headings or (first and (named or filled[0].startswith("sep="))):  # Excel's own first line
            columns, first = named or None, first and filled[0].startswith("sep=")
            continue
        first = False
        chosen = [cells[place] for place in columns if place < len(cells)] if columns else _named_cells(cells)
        chosen = [cell for cell in chosen if cell]
        shown = chosen[0] if chosen else next(filter(None, cells))
        yield Entry(number, shown, tuple(dict.fromkeys(chosen)))


def _named_cells(cells: list[str]) -> list[str]:
    """The first cell, and the others that are addresses: a title or a remark is no name of a work."""
    found = (cell for place, cell in enumerate(cells) if not place or is_address(cell))
    return [cell.strip() for cell in found if cell.strip()]


def _is_heading(cell: str) -> bool:
    text = cell.strip().strip("\ufeff")
    return bool(NAMES.fullmatch(text) or HEADINGS.fullmatch(text))


def _delimiter(text: str) -> str:
    """The sign between the cells of a table, by the first line that has one."""
    line = next((line for line in text.splitlines() if any(sign in line for sign in "\t;,")), "")
    return max("\t;,", key=line.count)


def _sheets(name: str, data: bytes) -> list[list[tuple[int, list[str]]]]:
    """The numbered rows of each sheet of a workbook."""
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(
            f"{KEY}={name}: a spreadsheet needs openpyxl (pip install openpyxl); or save it as CSV."
        ) from error
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        sheets = [
            [(number, [_cell(value) for value in row]) for number, row in enumerate(rows, 1)]
            for rows in (sheet.iter_rows(values_only=True) for sheet in book.worksheets)
        ]
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, TypeError) as error:
        raise InputError(f"{KEY}={name}: cannot be read as a spreadsheet ({error}).") from error
    return sheets


def _cell(value: object) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def write_list(found: OptOuts, folder: Path) -> None:
    """Write what each entry means into the dataset folder, for the person who keeps the list."""
    rows = ["line\tentry\tworks"]
    every = [*found.found, *((entry, []) for entry, _ in found.unmatched)]
    for entry, ids in sorted(every, key=lambda item: item[0].line):
        cells = (str(entry.line), entry.text, ", ".join(ids) or "matches no work")
        rows.append("\t".join(" ".join(cell.split()) for cell in cells))
    files.write(folder / LIST, "\n".join(rows) + "\n")


def opt_out_of(record: dict, listed: bool) -> str:
    """The column of a work that stays: `no` where a list or robots.txt was asked, else `unknown`."""
    return NO if listed or record.get("robots") == "allowed" else UNKNOWN


def read_record(folder: Path) -> list[dict]:
    """The works that opted out of a dataset, with the builds that may hold them.

    Raises:
        InputError: a line is none of ours.
    """
    path = folder / RECORD
    if not path.is_file():
        return []
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            entry = json.loads(line)
            entries.append({**entry, "id": str(entry["id"]), "manifests": list(entry.get("manifests", []))})
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: line {number} is no record of an opt-out: repair it.") from error
    return entries


def record(work: Path, folder: Path, builds: set[str]) -> None:
    """Keep which works opted out, before a new build takes the place of the one that held them.

    Args:
        work: the folder of the new build.
        folder: the dataset folder, with the documents of the build before.
        builds: manifests of the builds that stood there; what they held is not known, so all count.
    """
    dropped = pq.read_table(work / DROPPED)
    reasons = pc.is_in(dropped["reason"], value_set=_texts(OPT_OUTS))
    gone = {row["id"]: row["reason"] for row in dropped.filter(reasons).to_pylist()}
    held: set[str] = set()
    if gone and (folder / DOCUMENTS).is_file():
        try:
            ids = pq.read_table(folder / DOCUMENTS, columns=["id"])["id"]
            held = set(ids.filter(pc.is_in(ids, value_set=_texts(gone))).to_pylist())
        except (OSError, ValueError):  # damaged: what it held is not known, so it counts
            held = set(gone)
    known = {entry["id"]: entry for entry in read_record(folder)}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    before = dict(known)
    for identifier, reason in gone.items():
        entry = known.get(
            identifier, {"id": identifier, "date": today, "how": OPT_OUTS[reason], "manifests": []}
        )
        more = builds if identifier in held else set()
        known[identifier] = {**entry, "manifests": sorted({*entry["manifests"], *more})}
    if known != before:
        files.write(folder / RECORD, "".join(json.dumps(entry) + "\n" for entry in known.values()))


def _texts(values: Iterable[str]) -> pa.Array:
    return pa.array(sorted(values), pa.string())
