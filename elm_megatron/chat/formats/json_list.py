"""A .json file: one list of records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conf.errors import InputError
from elm_megatron.chat.format import of_records


def records(path: Path) -> Iterator[tuple[int, Any]]:
    """The records with their numbers, from 1.

    Raises:
        InputError: it is not UTF-8, not JSON, or no list.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows put a mark in front
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}).") from error
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, endless nesting
        raise InputError(f"{path}: not JSON ({error}).") from error
    if not isinstance(values, list):
        raise InputError(f"{path}: must hold a list of records.")
    yield from enumerate(values, 1)


FORMAT = of_records(".json", records)
