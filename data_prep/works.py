"""The works of a dataset with their numbers, for a take-down: ``python -m data_prep.works DIR [WORDS]``.

Prints number, id and title of the works whose id or title has all the words; without words, of all works.
With ``--rights`` also licence, access, legal basis and opt-out of each.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from data_prep.documents import DOCUMENTS, RIGHTS, UNKNOWN


def works(folder: Path, words: list[str]) -> Iterator[tuple[int, str, str]]:
    """(number, id, title) of the works that have all the words, whatever their case."""
    table = pq.read_table(folder / DOCUMENTS, columns=["id", "title"])
    for number, (identifier, title) in enumerate(zip(table["id"], table["title"], strict=True), 1):
        row = number, identifier.as_py(), title.as_py() or ""
        if all(word.lower() in f"{row[1]} {row[2]}".lower() for word in words):
            yield row


def rights(folder: Path) -> Iterator[tuple[str, ...]]:
    """Licence, access, legal basis and opt-out of every work, in order; what is not said is unknown."""
    table = pq.ParquetFile(folder / DOCUMENTS).read(columns=list(RIGHTS))
    for row in table.to_pylist():
        yield tuple(row.get(name) or UNKNOWN for name in RIGHTS)


def main() -> None:
    """Print the works."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a dataset folder, as data/sample")
    parser.add_argument("words", nargs="*", help="words of the id or the title")
    parser.add_argument("--rights", action="store_true", help=f"also {', '.join(RIGHTS)}")
    arguments = parser.parse_args()
    columns = list(rights(arguments.folder)) if arguments.rights else []
    for number, identifier, title in works(arguments.folder, arguments.words):
        print(number, identifier, title, *(columns[number - 1] if columns else ()), sep="\t")


if __name__ == "__main__":
    main()
