"""Reads the rows of Parquet files in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from truing.core.bounds import MAX_ROW_BYTES
from truing.core.errors import DataError, MissingExtra

_BATCH_ROWS = 1024


def read_parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number (from 0) and the fields of each row; a missing value is None.

    Raises MissingExtra without pyarrow, and DataError for a file that cannot be read or expands to
    far more than rows take.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise MissingExtra("hub", f"{path}: reading Parquet (package pyarrow)") from error
    try:
        index = 0
        # In batches, so that the file is never in memory as Python objects as a whole.
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                # A value that repeats is stored once in the file, but as often in a batch.
                if batch.nbytes > _BATCH_ROWS * MAX_ROW_BYTES // 64:
                    reason = f"rows {index} to {index + len(batch)} take {batch.nbytes >> 20} MiB"
                    raise DataError.at(path, None, f"{reason}; write it as JSONL")
                for row in batch.to_pylist():
                    yield index, row
                    index += 1
    except (ArrowException, OSError) as error:
        raise DataError.at(path, None, f"not Parquet: {error}") from error
