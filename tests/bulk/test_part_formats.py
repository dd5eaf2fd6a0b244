"""A part has the same bytes however many rows are added at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from truing.bulk.input_shards import ShardRows, find_sources, plan_shards
from truing.bulk.part_formats import PartEncoder
from truing.bulk.row_files import InputRow, RowOptions
from truing.bulk.row_judgements import ADDED_FIELDS

ROWS = [{"prompt": f"p{i}", "response": ["yes", "", 'a\n"b"'][i % 3]} for i in range(7)]
FAILURE = {"kind": "empty", "message": "there is no text to judge"}
VALUES = [
    (0.5, True, {"hate": 1.0}, ["hate"], False, None),
    (None, None, {}, [], False, FAILURE),
]


def write_input(path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".csv":
        cells = [('"' + text.replace('"', '""') + '"') for r in ROWS for text in r.values()]
        lines = [f"{a},{b}\n" for a, b in zip(cells[::2], cells[1::2])]
        path.write_text("prompt,response\n" + "".join(lines))
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return path


def encode(path: Path, rows_at_a_time: int) -> bytes:
    options = RowOptions()
    (shard,) = plan_shards(find_sources(str(path), options), options)
    source = ShardRows(shard, options, list(ADDED_FIELDS))
    part = PartEncoder(source)
    rows = [row for row in source if isinstance(row, InputRow)]
    values: list[Any] = [VALUES[number % 2] for number in range(len(rows))]
    for start in range(0, len(rows), rows_at_a_time):
        end = start + rows_at_a_time
        part.add(rows[start:end], values[start:end])
    return part.encode()


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_rows_may_be_added_in_pieces(tmp_path: Path, ending: str) -> None:
    path = write_input(tmp_path / f"in.{ending}")
    at_once = encode(path, 100)
    assert encode(path, 1) == encode(path, 3) == at_once
    (tmp_path / "part").write_bytes(at_once)
    if ending == "parquet":
        judged = pq.read_table(tmp_path / "part").to_pylist()
        assert [row["prompt"] for row in judged] == [row["prompt"] for row in ROWS]
        assert judged[0]["categories"] == [("hate", 1.0)]
        assert judged[1]["failure"] == FAILURE
    else:
        # A table has one header; other formats have none.
        assert at_once.count(b"flagged_categories") == (1 if ending == "csv" else len(ROWS))
