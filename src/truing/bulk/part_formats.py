"""Encodes the judged rows of a shard: JSON lines, a table, or Parquet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from truing.bulk.input_shards import ShardRows, open_parquet
from truing.bulk.row_files import InputRow
from truing.specs.extras import needs_extra


class PartEncoder:
    """Encodes a part from its judged rows, which are added in the order of the input.

    A table gets its header. Parquet keeps the types of the input's columns, and all rows until the
    end; of other formats only the encoded rows are held.
    """

    def __init__(self, source: ShardRows) -> None:
        self._source = source
        self._lines: list[bytes] = []
        self._rows: list[InputRow] = []
        self._values: list[Sequence[Any]] = []

    def add(self, rows: Sequence[InputRow], values: Sequence[Sequence[Any]]) -> None:
        """Adds rows with the values of the fields that they get."""
        if self._source.shard.format == "parquet":
            self._rows += rows
            self._values += values
            return
        encode_row = self._source.file.encode_row
        self._lines.append(b"".join(encode_row(row, of_row) for row, of_row in zip(rows, values)))

    def encode(self) -> bytes:
        """Returns the file."""
        if self._source.shard.format == "parquet":
            return _encode_parquet(self._source, self._rows, self._values)
        return b"".join((self._source.file.encode_header(), *self._lines))


def _encode_parquet(
    source: ShardRows, rows: Sequence[InputRow], judged_rows: Sequence[Sequence[Any]]
) -> bytes:
    with needs_extra("writing Parquet", "ray"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    with open_parquet(source.shard.path) as file:
        schema = file.schema_arrow.remove_metadata()
    # In the order of `ADDED_FIELDS`: the same types in every part, whatever its rows are.
    types = (
        pa.float64(),
        pa.bool_(),
        pa.map_(pa.string(), pa.float64()),
        pa.list_(pa.string()),
        pa.bool_(),
        pa.struct([("kind", pa.string()), ("message", pa.string())]),
    )
    columns = [
        pa.array([row.fields[name] for row in rows], schema.field(name).type)
        for name in schema.names
    ]
    names = list(schema.names)
    for position, (name, kind) in enumerate(zip(source.file.added, types)):
        cells = [of_row[position] for of_row in judged_rows]
        if pa.types.is_map(kind):
            cells = [list(cell.items()) for cell in cells]
        columns.append(pa.array(cells, kind))
        names.append(name)
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, names=names), stream, compression="zstd")
    return stream.getvalue()
