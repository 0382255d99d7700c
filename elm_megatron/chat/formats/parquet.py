"""A .parquet file: one record a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conf.errors import InputError
from elm_megatron.chat.format import of_records


def records(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows with their numbers, from 1.

    Raises:
        InputError: it is not Parquet.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        file = pyarrow.parquet.ParquetFile(path)
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable as Parquet ({error}).") from error


FORMAT = of_records(".parquet", records)
