"""Encodes the judged rows of a shard: JSON lines, a table, or Parquet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from truing.bulk.input_shards import ShardRows, open_parquet
from truing.bulk.row_files import InputRow
from truing.specs.extras import needs_extra


def encode_part(
    source: ShardRows, rows: Sequence[InputRow], values: Sequence[Sequence[Any]]
) -> bytes:
    """Returns the file with the rows and the values of the fields that they get.

    A table gets its header. Parquet keeps the types of the input's columns.
    """
    if source.shard.format == "parquet":
        return _encode_parquet(source, rows, values)
    lines = [source.file.encode_row(row, of_row) for row, of_row in zip(rows, values)]
    return source.file.encode_header() + b"".join(lines)


def _encode_parquet(
    source: ShardRows, rows: Sequence[InputRow], values: Sequence[Sequence[Any]]
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
        cells = [of_row[position] for of_row in values]
        if pa.types.is_map(kind):
            cells = [list(cell.items()) for cell in cells]
        columns.append(pa.array(cells, kind))
        names.append(name)
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, names=names), stream, compression="zstd")
    return stream.getvalue()
