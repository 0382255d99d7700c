"""A .jsonl file: one record a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conf.errors import InputError
from elm_megatron.chat.format import of_records


def records(path: Path) -> Iterator[tuple[int, Any]]:
    """The records with the numbers of their lines; a byte-order mark before a line is left out.

    Raises:
        InputError: it is not UTF-8, or a line is not JSON.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                line = line.strip().strip("\ufeff")
                if line:
                    yield number, _parsed(path, number, line)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}).") from error


def _parsed(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: line {number}: not JSON ({error}).") from error


FORMAT = of_records(".jsonl", records)
