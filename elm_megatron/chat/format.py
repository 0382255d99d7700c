"""A format of chat data: what a file in `formats/` provides.

Each module of `elm_megatron/chat/formats/` has one `FORMAT`; `read.py` finds them there. A new format is one
more file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import InputError
from elm_megatron.chat import records
from elm_megatron.chat.template import Dialogue, Preference

Records = Callable[[Path], Iterable[tuple[int, Any]]]


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        suffix: of its names, lower case, such as ".jsonl".
        dialogues: (path, sheet, skipped) → its dialogues; counts records without one in `skipped`, by reason.
        preferences: (path, sheet, min_agreement, counts) → its preferences; counts the others in `counts`.

    Both raise `InputError` where the file is not what its suffix says.
    """

    suffix: str
    dialogues: Callable[[Path, str, Counter[str]], Iterator[Dialogue]]
    preferences: Callable[[Path, str, float, Counter[str]], Iterator[Preference]]


def of_records(suffix: str, read: Records) -> Format:
    """The format of files that hold records, which are mappings.

    Args:
        suffix: of its names.
        read: gives the records of a file with their numbers, from 1.
    """

    def dialogues(path: Path, sheet: str, skipped: Counter[str]) -> Iterator[Dialogue]:
        for number, record in read(path):
            try:
                found = records.dialogue(record)
            except records.Unknown as error:
                raise InputError(f"{path}: record {number} {error}.") from error
            if isinstance(found, str):
                skipped[found] += 1
            else:
                yield found

    def preferences(
        path: Path, sheet: str, min_agreement: float, counts: Counter[str]
    ) -> Iterator[Preference]:
        for number, record in read(path):
            try:
                found = records.preference(record)
            except records.Unknown as error:
                raise InputError(f"{path}: record {number} {error}.") from error
            if isinstance(found, str):
                counts[f"skipped, {found}"] += 1
            else:
                yield found

    return Format(suffix, dialogues, preferences)
