"""Rows of a worksheet, read as a stream: bounded memory whatever the file holds.

An .xlsx is a zip of XML. Nothing is computed (a formula gives its stored value), nothing outside the file is
read, and shared texts are spooled to disk. What a spreadsheet may legally hold sets the limits: a cell has at
most 32,767 characters, a sheet 1,048,576 rows.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

from conf.errors import InputError

MAX_CELL = 32_767
MAX_COLUMNS = 256  # what lies to the right of these is ignored
MAX_PARTS = 2_000
MAX_UNPACKED = 2_000_000_000
MAX_RATIO = 200  # unpacked over packed, for parts that matter
SMALL_PART = 20_000_000
CHUNK = 1 << 16
MAX_SILENT = 1 << 20  # bytes of XML without a tag or a text
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STRICT_RELATION = "http://purl.oclc.org/ooxml/officeDocument/relationships"

ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")

Cell = str | float | bool | None


class Workbook:
    """An .xlsx file.

    Args:
        path: the file.

    Raises:
        InputError: it is not an .xlsx, or unpacks to more than a spreadsheet has reason to.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(
                f"{path}: not an .xlsx file (an old .xls or an encrypted file must be saved as .xlsx)."
            ) from error
        self._check_sizes()
        self.sheets = self._sheets()

    def _check_sizes(self) -> None:
        parts = self._zip.infolist()
        unpacked = sum(part.file_size for part in parts)
        steep = [p for p in parts if p.file_size > max(SMALL_PART, MAX_RATIO * max(1, p.compress_size))]
        if len(parts) > MAX_PARTS or unpacked > MAX_UNPACKED or steep:
            raise InputError(
                f"{self.path}: unpacks to {unpacked:,} bytes in {len(parts)} parts, which no honest "
                f"spreadsheet of {self.path.stat().st_size:,} bytes does; it is not read."
            )

    def _parse(self, part: str) -> _Parser:
        try:
            return _Parser(self.path, part, self._zip.open(part))
        except KeyError as error:
            raise InputError(f"{self.path}: not an .xlsx file, it lacks {part}.") from error
        except (RuntimeError, NotImplementedError) as error:
            raise InputError(f"{self.path}: {part} is encrypted or packed in an unknown way.") from error

    def _sheets(self) -> dict[str, str]:
        """{title: part} of the worksheets, in order."""
        targets: dict[str, str] = {}
        for tag, attributes in self._parse("xl/_rels/workbook.xml.rels").elements():
            if tag == "Relationship":
                targets[attributes.get("Id", "")] = attributes.get("Target", "")
        sheets = {}
        for tag, attributes in self._parse("xl/workbook.xml").elements():
            if tag == "sheet":
                identity = attributes.get(f"{RELATION} id") or attributes.get(f"{STRICT_RELATION} id", "")
                target = targets.get(identity, "")
                sheets[attributes.get("name", "")] = target[1:] if target.startswith("/") else f"xl/{target}"
        return sheets

    def rows(self, title: str) -> Iterator[list[Cell]]:
        """The rows of a worksheet that hold anything, as cells from column A on.

        Of merged cells the first holds the value and the others are None.

        Raises:
            InputError: there is no such sheet, or the file is broken.
        """
        named = {name.strip().casefold(): part for name, part in self.sheets.items()}
        if title.strip().casefold() not in named:
            found = ", ".join(repr(name) for name in list(self.sheets)[:10])
            raise InputError(f"{self.path}: has no sheet {title!r}; it has {found or 'none'}.")
        with tempfile.TemporaryFile() as spool:
            shared = _SharedTexts(spool)
            if "xl/sharedStrings.xml" in self._zip.namelist():
                for item in self._parse("xl/sharedStrings.xml").texts("si"):
                    shared.append(item)
            try:
                yield from _rows(self._parse(named[title.strip().casefold()]), shared)
            except ValueError as error:
                raise InputError(f"{self.path}: sheet {title!r} is broken ({error}).") from error


class _SharedTexts:
    """Texts by number, kept in a file."""

    def __init__(self, spool: IO[bytes]):
        self._spool, self._ends = spool, array("Q", [0])

    def append(self, text: str) -> None:
        raw = text.encode("utf-8", "surrogatepass")
        self._spool.write(raw)
        self._ends.append(self._ends[-1] + len(raw))

    def __getitem__(self, number: int) -> str:
        if not 0 <= number < len(self._ends) - 1:
            raise ValueError(f"shared text {number} does not exist")
        self._spool.seek(self._ends[number])
        return self._spool.read(self._ends[number + 1] - self._ends[number]).decode("utf-8", "surrogatepass")


class _Parser:
    """Events of one XML part. A document type, an oversized text or an endless tag ends the reading."""

    def __init__(self, path: Path, part: str, stream: IO[bytes]):
        self._path, self._part, self._stream = path, part, stream
        self._events: list[tuple[str, str, Any]] = []
        self._silent = 0
        self._text: list[str] = []
        self._length = 0
        self._expat = expat.ParserCreate(namespace_separator=" ")
        self._expat.buffer_text = True
        self._expat.StartDoctypeDeclHandler = self._refuse_doctype
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._characters

    def _refuse_doctype(self, *args: Any) -> None:
        raise InputError(f"{self._path}: {self._part} declares a document type, which no spreadsheet does.")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._silent = 0
        self._flush()
        self._events.append(("start", name.rpartition(" ")[2], attributes))

    def _end(self, name: str) -> None:
        self._silent = 0
        self._flush()
        self._events.append(("end", name.rpartition(" ")[2], None))

    def _characters(self, text: str) -> None:
        self._silent = 0
        self._length += len(text)
        if self._length > MAX_CELL + CHUNK:
            raise InputError(f"{self._path}: a cell has more than {MAX_CELL:,} characters.")
        self._text.append(text)

    def _flush(self) -> None:
        if self._text:
            self._events.append(("text", "".join(self._text), None))
        self._text, self._length = [], 0

    def events(self) -> Iterator[tuple[str, str, Any]]:
        """(start, tag, attributes), (text, characters, None) and (end, tag, None), in order."""
        try:
            while chunk := self._stream.read(CHUNK):
                self._silent += len(chunk)
                if self._silent > MAX_SILENT:
                    raise InputError(f"{self._path}: {self._part} holds an endless tag.")
                self._expat.Parse(chunk, False)
                yield from self._events
                self._events.clear()
            self._expat.Parse(b"", True)
            yield from self._events
        except (expat.ExpatError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise InputError(f"{self._path}: {self._part} is broken ({error}).") from error

    def elements(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Tags with their attributes."""
        for kind, name, attributes in self.events():
            if kind == "start":
                yield name, attributes

    def texts(self, outer: str) -> Iterator[str]:
        """The text of each `outer` element: its <t> parts joined, phonetic hints (<rPh>) left out."""
        parts: list[str] = []
        inside, hint = False, False
        for kind, name, _ in self.events():
            if kind == "text":
                if inside and not hint:
                    parts.append(name)
            elif name == "t":
                inside = kind == "start"
            elif name == "rPh":
                hint = kind == "start"
            elif name == outer and kind == "end":
                yield "".join(parts)[:MAX_CELL]
                parts = []


def _rows(parser: _Parser, shared: _SharedTexts) -> Iterator[list[Cell]]:
    row: list[Cell] = []
    kind, column, next_column = "n", 0, 0
    value: list[str] = []
    inside, has_value = False, False
    for event, name, attributes in parser.events():
        if event == "text":
            if inside:
                value.append(name)
        elif event == "start":
            if name == "row":
                row, next_column = [], 0
            elif name == "c":
                column = _column(attributes.get("r", ""), next_column)
                kind, value, has_value, next_column = attributes.get("t", "n"), [], False, column + 1
            elif name in ("v", "t"):
                inside = has_value = True
        elif name in ("v", "t"):
            inside = False
        elif name == "c" and has_value and column < MAX_COLUMNS:
            row += [None] * (column + 1 - len(row))
            row[column] = _cell(kind, "".join(value), shared)
        elif name == "row" and any(cell is not None for cell in row):
            yield row
            row = []


def _column(reference: str, following: int) -> int:
    """Column number, from 0, of a reference such as "AB12"; cells may leave it out."""
    letters = re.match(r"[A-Z]{1,3}", reference)
    if letters is None:
        return following
    number = 0
    for letter in letters[0]:
        number = number * 26 + ord(letter) - 64
    return number - 1


def _cell(kind: str, text: str, shared: _SharedTexts) -> Cell:
    """A cell's value by its type: shared, inline or computed text, a truth value, a number, or an error."""
    if kind == "s":
        return _unescaped(shared[int(text)])
    if kind in ("str", "inlineStr"):
        return _unescaped(text)
    if kind == "b":
        return text == "1"
    if kind == "e" or not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _unescaped(text: str) -> str:
    """With _xHHHH_ read as the UTF-16 unit it stands for, in which Excel writes what XML cannot hold."""
    if not ESCAPE.search(text):
        return text
    units = ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    return units.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
