"""Text that is safe to show: names chosen by strangers, in a terminal's table and in a CSV file.

A job's name may hold terminal escapes, newlines, columns' separators, letters that take two cells or none,
and spreadsheet formulas. Control characters and whatever turns the direction of writing are shown as escapes.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

# Cc control, Cf format (bidirectional marks, zero-width joiners), Cs surrogate, Co private, Cn unassigned,
# Zl and Zp line and paragraph separators.
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def escaped(text: str) -> str:
    """The text with every character that could move the cursor or hide itself written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in HIDDEN
        else character
        for character in text
    )


def cells(text: str) -> int:
    """How many terminal cells the text takes."""
    if text.isascii():
        return len(text)
    return sum(_cell_width(character) for character in text)


def _cell_width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitted(text: str, width: int) -> str:
    """The text cut to `width` cells, with an ellipsis in place of what was cut."""
    if cells(text) <= width:
        return text
    taken, room = [], width - 1
    for character in text:
        room -= _cell_width(character)
        if room < 0:
            break
        taken.append(character)
    return "".join(taken) + "…"


def table(columns: Mapping[str, Sequence[str]], widest: int = 32) -> str:
    """A plain table; numbers' columns (every cell starts or ends with a digit) stand to the right.

    Args:
        columns: each column's cells by its title, of any length and content; they are escaped and cut to
            `widest` cells.
        widest: most cells a column may take; the last column is not cut.
    """
    last = list(columns)[-1]
    padded = [
        _aligned(title, column, 10_000 if title == last else widest) for title, column in columns.items()
    ]
    return "\n".join(map(str.rstrip, map("  ".join, zip(*padded, strict=True))))


def _aligned(title: str, column: Sequence[str], widest: int) -> list[str]:
    """The title and the cells under it, all of one width.

    Users, partitions and states come again in every line, so each different text is looked at once.
    """
    shown = {text: text for text in column}
    everything = "".join(shown)
    if everything.isascii() and everything.isprintable():
        shown = {text: text if len(text) <= widest else fitted(text, widest) for text in shown}
    else:
        shown = {text: fitted(escaped(text), widest) for text in shown}
    room = max(map(cells, (title, *shown.values())))
    pad = str.rjust if shown and all(map(_is_number, shown.values())) else str.ljust
    # A letter of two cells takes one from the blanks.
    whole = {text: pad(cut, room + len(cut) - cells(cut)) for text, cut in shown.items()}
    return [pad(title, room), *map(whole.__getitem__, column)]


def _is_number(cell: str) -> bool:
    return cell.isdigit() or cell == "-" or cell.replace(",", "").replace(".", "", 1).isdigit()


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV that a spreadsheet reads as plain values: text that would start a formula gets a leading quote."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_csv_value(value) for value in row])
    return file.getvalue()


def _csv_value(value: object) -> object:
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = escaped(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text


def span(seconds: float | None) -> str:
    """`3d 04:05`, `2:03:04`, `3:04`: days and hours, or down to the second under a day; `-` for None."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    return _days(whole // 60) if whole >= 86400 else _clock(whole)


@lru_cache(maxsize=65536)
def _days(minutes: int) -> str:
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24}d {hours % 24:02d}:{minutes:02d}"


@lru_cache(maxsize=65536)
def _clock(whole: int) -> str:
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def moment(epoch: float | None) -> str:
    """Local time of UTC epoch seconds to the minute, `-` for None."""
    return "-" if epoch is None else _minute(int(epoch // 60))


@lru_cache(maxsize=8192)
def _minute(number: int) -> str:
    """Local time of a minute, counted from the epoch; many jobs start in the same one."""
    return datetime.fromtimestamp(number * 60).strftime("%m-%d %H:%M")


def quantity(value: float | None, digits: int = 1) -> str:
    """A number with thousands separators, `-` for None."""
    return "-" if value is None else f"{value:,.{digits}f}"
