"""A data set of Python objects: prompts, dictionaries, samples, or a table of pandas, polars,
pyarrow or the `datasets` package.

Rows have the columns of `file:` (`truing.datasets.file`): `prompt` or `messages`, optionally `id`,
`response`, `category`, `expect` and so on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from truing.core.errors import DataError
from truing.core.types import Conversation, Row, Sample
from truing.datasets import file
from truing.datasets.base import DatasetOptions, FileDataset
from truing.datasets.readers import Record

# The key under which a record holds a whole sample; no column of a user's table has this name.
_SAMPLE = "\0sample"

# What msgspec raises for an unknown type, a lone surrogate, a key that is no text, a huge integer
# and a value that contains itself.
_ENCODING_ERRORS = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


class MemoryDataset(FileDataset):
    """Rows that are in memory.

    `columns` maps the column names of `file:` to those of the rows, such as `prompt="question"`.
    Raises DataError for rows that cannot be read, and for no rows.
    """

    def __init__(self, rows: object, *, name: str = "rows", **columns: str) -> None:
        self._name = name
        self._records = [_read_record(row, i, name) for i, row in enumerate(_iterate_rows(rows))]
        if not self._records:
            raise DataError(f"{name}: no rows")
        unknown = [key for key in columns if key not in file.COLUMNS]
        if unknown:
            raise DataError(
                f"{name}: {', '.join(unknown)}: no such column; there are {', '.join(file.COLUMNS)}"
            )
        published = replace(
            file.DATASET, kind="memory", title="rows in memory", source=name, convert=_convert
        )
        super().__init__(published, (), DatasetOptions(extra=columns), f"memory:{name}")

    def sha256(self) -> str:
        """Returns the SHA-256 (hex) of the rows, encoded as JSON.

        Raises DataError, with row and column, for a value that JSON cannot hold.
        """
        try:
            encoded = msgspec.json.encode([record.data for record in self._records])
        except _ENCODING_ERRORS as error:
            faults = (fault for record in self._records for fault in _find_encoding_faults(record))
            raise next(faults, DataError(f"{self._name}: {error}")) from error
        return hashlib.sha256(encoded).hexdigest()

    def records(self) -> Iterator[Record]:
        """Yields the rows as records."""
        yield from self._records


def _iterate_rows(rows: object) -> Iterable[object]:
    """Returns the rows of a table or of an iterable."""
    # Tables are recognised by their methods, so that pandas, polars or pyarrow is never imported.
    # polars before pandas: its tables have a `to_dict` too, which gives columns.
    for method in ("to_dicts", "to_pylist"):
        if hasattr(rows, method):
            records: list[object] = getattr(rows, method)()
            return records
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        records = rows.to_dict("records")
        return records
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise DataError(
            f"a data set is a list of prompts, of rows or of samples, or a table; "
            f"got {type(rows).__name__}"
        )
    return rows


def _read_record(row: object, index: int, name: str) -> Record:
    place = f"[{index}]"
    if isinstance(row, str):
        return Record(name, place, {"prompt": row})
    if isinstance(row, Conversation):
        return Record(name, place, {_SAMPLE: Sample(conversation=row)})
    if isinstance(row, Sample):
        return Record(name, place, {_SAMPLE: row})
    if isinstance(row, Mapping):
        return Record(name, place, {str(key): _to_plain_data(value) for key, value in row.items()})
    if isinstance(row, (list, tuple)) and row and all(isinstance(m, Mapping) for m in row):
        return Record(name, place, {"messages": [dict(m) for m in row]})
    raise DataError(
        f"{name}{place}: a row is a prompt, a dictionary, a list of messages, a Conversation or a "
        f"Sample; got {type(row).__name__}"
    )


def _to_plain_data(cell: Any) -> Any:
    """Returns a cell as a plain Python object; None for a missing value (NaN, pandas' NA, NaT)."""
    if hasattr(cell, "tolist"):  # numpy's arrays and scalars
        cell = cell.tolist()
    if isinstance(cell, float) and math.isnan(cell):
        return None
    # By the name of the type: a comparison with pandas' NA gives NA, which has no truth value.
    return None if type(cell).__name__ in ("NAType", "NaTType") else cell


def _find_encoding_faults(record: Record) -> Iterator[DataError]:
    """Yields an error for each value of a row that cannot be encoded as JSON."""
    for column, value in record.data.items():
        try:
            msgspec.json.encode({column: value})
        except _ENCODING_ERRORS as error:
            place = "the sample" if column == _SAMPLE else f"column {column!r}"
            yield record.error(
                f"{place}: a {type(value).__name__} that JSON cannot hold ({error}); "
                "give text, numbers, lists or dictionaries of them"
            )


def _convert(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Returns the sample that a record holds, or else the row of its columns as in `file:`."""
    sample = record.data.get(_SAMPLE)
    if isinstance(sample, Sample):
        return [Row(sample=sample)]
    return file.convert(record, options)
