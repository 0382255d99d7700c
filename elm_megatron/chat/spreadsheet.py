"""Rows of a worksheet, read by openpyxl as a stream, from files that people made with any program.

openpyxl computes nothing (a formula gives its stored value) and reads nothing outside the file. Added here: a
check of the sizes before anything is unpacked, names of parts in any capitals, the strict form of the format,
and the characters that Excel writes as `_xHHHH_`.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import IO, Any

from conf.errors import InputError

MAX_CELL = 32_767  # characters, by the format
MAX_COLUMNS = 256  # those to the right are ignored
MAX_PARTS = 2_000
MAX_UNPACKED = 500_000_000
MAX_RATIO = 200  # unpacked over packed, for parts above SMALL_PART
SMALL_PART = 20_000_000
SHARED_TEXTS = "xl/sharedStrings.xml"  # where no list of the parts says where they are
HEAD = 4_096  # bytes in which a part declares what it is

STRICT = (  # namespaces of the strict form, and those that openpyxl knows
    (b"http://purl.oclc.org/ooxml/spreadsheetml/", b"http://schemas.openxmlformats.org/spreadsheetml/2006/"),
    (
        b"http://purl.oclc.org/ooxml/officeDocument/",
        b"http://schemas.openxmlformats.org/officeDocument/2006/",
    ),
)
ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")

Cell = str | float | int | bool | datetime | date | time | None


class Package(zipfile.ZipFile):
    """The zip of an .xlsx; a part is found under its name in any capitals.

    Raises:
        InputError: it is no zip, or unpacks to more than a spreadsheet has reason to.
    """

    def __init__(self, path: Path):
        try:
            super().__init__(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(
                f"{path}: not an .xlsx file (an old .xls or an encrypted file must be saved as .xlsx)."
            ) from error
        self.path = path
        self._names = {name.casefold(): name for name in self.namelist()}
        parts = self.infolist()
        unpacked = sum(part.file_size for part in parts)
        steep = [p for p in parts if p.file_size > max(SMALL_PART, MAX_RATIO * max(1, p.compress_size))]
        if len(parts) > MAX_PARTS or unpacked > MAX_UNPACKED or steep:
            raise InputError(
                f"{path}: unpacks to {unpacked:,} bytes in {len(parts)} parts, which no honest "
                f"spreadsheet of {path.stat().st_size:,} bytes does; it is not read."
            )

    def __contains__(self, name: str) -> bool:
        """Whether there is such a part."""
        return name.casefold() in self._names

    def getinfo(self, name: str) -> zipfile.ZipInfo:
        """A part by its name."""
        return super().getinfo(self._names.get(name.casefold(), name))

    def read(self, name: Any, pwd: bytes | None = None) -> bytes:
        """The bytes of a part."""
        with self.open(name) as part:
            return part.read()

    def open(self, name: Any, mode: Any = "r", pwd: bytes | None = None, **more: Any) -> IO[bytes]:
        """A part, with the namespaces that openpyxl knows.

        Raises:
            InputError: it declares a document type, which could define entities.
        """
        part = super().open(name, mode, pwd, **more)
        head = part.read(HEAD)
        if b"<!DOCTYPE" in head:
            raise InputError(f"{self.path}: {name} declares a document type, which no spreadsheet does.")
        if any(strict in head for strict, _ in STRICT):
            data = head + part.read()
            for strict, known in STRICT:
                data = data.replace(strict, known)
            return io.BytesIO(data)
        part.seek(0)
        return part


class Workbook:
    """An .xlsx file.

    Args:
        path: the file.

    Raises:
        InputError: it is not an .xlsx, or unpacks to more than a spreadsheet has reason to.
    """

    def __init__(self, path: Path):
        self.path = path
        package = Package(path)
        with self._as_sentences("the workbook"):
            self._book = _open(path, package)

    def rows(self, title: str) -> Iterator[list[Cell]]:
        """The rows of a worksheet that hold anything, as cells from column A on.

        Of merged cells the first holds the value and the others are None. Errors (`#N/A`) are None.

        Raises:
            InputError: there is no such sheet, or the file is broken.
        """
        titles = {name.strip().casefold(): name for name in self._book.sheetnames}
        if title.strip().casefold() not in titles:
            found = ", ".join(repr(name) for name in self._book.sheetnames[:10])
            raise InputError(f"{self.path}: has no sheet {title!r}; it has {found or 'none'}.")
        sheet = self._book[titles[title.strip().casefold()]]
        sheet.reset_dimensions()  # programs write wrong ones
        with self._as_sentences(f"sheet {title!r}"):
            for row in sheet.iter_rows(max_col=MAX_COLUMNS):
                cells = [self._value(cell) for cell in row]
                if any(cell is not None for cell in cells):
                    yield cells

    def _value(self, cell: Any) -> Cell:
        value = cell.value
        if not isinstance(value, str):
            return value
        if len(value) > MAX_CELL * 2:  # escapes are longer than what they mean
            raise InputError(f"{self.path}: a cell has more than {MAX_CELL:,} characters.")
        return None if cell.data_type == "e" else unescaped(value)

    def _as_sentences(self, what: str) -> _Sentences:
        return _Sentences(self.path, what)


class _Sentences:
    """Turns the errors of openpyxl and of the libraries below it into a sentence."""

    def __init__(self, path: Path, what: str):
        self._path, self._what = path, what

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, InputError):
            return
        if isinstance(error, KeyError):
            raise InputError(f"{self._path}: not an .xlsx file ({error.args[0]}).") from error
        if isinstance(error, RuntimeError | NotImplementedError):
            raise InputError(f"{self._path}: encrypted, or packed in an unknown way ({error}).") from error
        raise InputError(f"{self._path}: {self._what} is broken ({error}).") from error


def _open(path: Path, package: Package) -> Any:
    """openpyxl's workbook of a package, with stored values and the texts as they are written."""
    from openpyxl.reader.excel import ExcelReader, apply_stylesheet
    from openpyxl.xml.constants import SHARED_STRINGS
    from openpyxl.xml.functions import iterparse

    class Reader(ExcelReader):
        def read_strings(self) -> None:
            # openpyxl's own reader undoes a part of Excel's escapes: the rest would not be known from text.
            listed = self.package.find(SHARED_STRINGS)
            name = listed.PartName[1:] if listed else SHARED_TEXTS
            if name not in package:
                return
            with package.open(name) as part:
                for _, node in iterparse(part):
                    if node.tag.endswith("}si"):
                        self.shared_strings.append(_shared_text(node))
                        node.clear()

        def read(self) -> None:
            self.read_manifest()
            self.read_strings()
            self.read_workbook()
            apply_stylesheet(self.archive, self.wb)  # which numbers are dates
            self.read_worksheets()

    reader = Reader(path, read_only=True, data_only=True, keep_links=False)
    reader.archive.close()
    reader.archive = reader.valid_files = package
    reader.read()
    return reader.wb


def _shared_text(node: Any) -> str:
    """The text of a shared string: its parts joined, phonetic hints (`rPh`) left out."""
    parts = (part for part in node if not part.tag.endswith("}rPh"))
    return "".join(text.text or "" for part in parts for text in part.iter() if text.tag.endswith("}t"))


def unescaped(text: str) -> str:
    """With _xHHHH_ read as the UTF-16 unit it stands for, in which Excel writes what XML cannot hold."""
    if not ESCAPE.search(text):
        return text
    units = ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    return units.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
