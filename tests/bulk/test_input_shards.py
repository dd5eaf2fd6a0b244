"""Shards of files: together they are the file, wherever its ranges end; what is wrong is named."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from truing.bulk import input_shards
from truing.bulk.input_shards import ShardRows, find_sources, plan_shards
from truing.bulk.row_files import InputRow, RowFile, RowOptions
from truing.core import jsonl
from truing.core.errors import DataError

# One folder for all examples of a property: each writes the file anew.
SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXT = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r"), max_size=12
)


def read_shards(path: Path, shard_bytes: int, options: RowOptions | None = None) -> list[Any]:
    options = options or RowOptions()
    shards = plan_shards(find_sources(str(path), options), options, shard_bytes)
    assert [shard.number for shard in shards] == list(range(len(shards)))
    rows: list[Any] = []
    for shard in shards:
        rows += ShardRows(shard, options, [])
    return rows


def fields_of(rows: list[Any]) -> list[dict[str, Any]]:
    assert all(isinstance(row, InputRow) for row in rows), rows
    return [row.fields for row in rows]


@SETTINGS
@given(
    texts=st.lists(TEXT, max_size=12),
    shard_bytes=st.integers(1, 200),
    ending=st.sampled_from(["\n", ""]),
    blank=st.booleans(),
)
def test_ranges_of_json_lines_are_the_file(
    tmp_path: Path, texts: list[str], shard_bytes: int, ending: str, blank: bool
) -> None:
    path = tmp_path / "rows.jsonl"
    separator = "\n\n" if blank else "\n"
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path.write_text(separator.join(lines) + (ending if lines else ""))
    assert fields_of(read_shards(path, shard_bytes)) == [{"text": text} for text in texts]


@SETTINGS
@given(
    cells=st.lists(st.tuples(TEXT, TEXT), max_size=10),
    shard_bytes=st.integers(1, 120),
    delimiter=st.sampled_from([",", ";"]),
    mark=st.booleans(),
)
def test_ranges_of_a_table_are_the_table(
    tmp_path: Path, cells: list[tuple[str, str]], shard_bytes: int, delimiter: str, mark: bool
) -> None:
    path = tmp_path / "rows.csv"
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
    writer.writerow(["prompt", "response"])
    writer.writerows(cells)
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.getvalue().encode())
    whole = fields_of(list(RowFile(path, RowOptions(), []).rows()))
    assert fields_of(read_shards(path, shard_bytes)) == whole


def test_a_table_in_utf_16_is_one_shard(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("prompt\tresponse\na\tb\nc\td\n".encode("utf-16"))
    assert [row["prompt"] for row in fields_of(read_shards(path, 3))] == ["a", "c"]


def write_parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def test_row_groups_are_shards(tmp_path: Path) -> None:
    rows = [{"id": i, "text": f"t{i}"} for i in range(25)]
    path = write_parquet(tmp_path / "rows.parquet", rows, row_group_size=4)
    assert fields_of(read_shards(path, 1)) == rows
    assert fields_of(read_shards(path, 1 << 30)) == rows


def test_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name}) + "\n")
    (tmp_path / "readme.md").write_text("no rows")
    named = [row["text"] for row in fields_of(read_shards(tmp_path, 100))]
    assert named == ["a.jsonl", "b.jsonl", "deep/c.jsonl"]
    assert len(read_shards(tmp_path / "?.jsonl", 100)) == 2
    with pytest.raises(DataError, match=r"no files of rows"):
        find_sources(str(tmp_path / "*.csv"), RowOptions())
    (tmp_path / "t.csv").write_text("text\na\n")
    with pytest.raises(DataError, match=r"several formats \(csv, jsonl\)"):
        find_sources(str(tmp_path), RowOptions())
    with pytest.raises(DataError, match=r"no\.jsonl: No such file"):
        find_sources(str(tmp_path / "no.jsonl"), RowOptions())


def test_a_shard_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a"}) * 1 + "\n" + json.dumps({"text": "b"}) + "\n")
    (shard,) = plan_shards(find_sources(str(path), RowOptions()), RowOptions())
    path.write_text(json.dumps({"text": "a"}) + "\n")
    with pytest.raises(DataError, match=r"ends before the 28 bytes .* cut short"):
        list(ShardRows(shard, RowOptions(), []))
    parquet = write_parquet(tmp_path / "rows.parquet", [{"text": "a"}] * 9, row_group_size=3)
    (shard,) = plan_shards(find_sources(str(parquet), RowOptions()), RowOptions())
    write_parquet(parquet, [{"text": "a"}])
    with pytest.raises(DataError, match=r"ends before the 3 row groups"):
        list(ShardRows(shard, RowOptions(), []))
    parquet.write_bytes(parquet.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"rows\.parquet: cannot be read as Parquet"):
        plan_shards(find_sources(str(parquet), RowOptions()), RowOptions())


def test_a_column_that_is_renamed_between_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,response\na,b\n")
    (tmp_path / "b.csv").write_text("prompt,respone\na,b\n")
    with pytest.raises(DataError, match=r"b\.csv: no column 'response'; did you mean 'respone'"):
        plan_shards(find_sources(str(tmp_path / "*.csv"), RowOptions()), RowOptions())
    (tmp_path / "b.csv").write_text("prompt,response,text\na,b,c\n")
    with pytest.raises(DataError, match=r"has a column 'text' that .*a\.csv has not"):
        plan_shards(find_sources(str(tmp_path / "*.csv"), RowOptions()), RowOptions())
    named = RowOptions(prompt="prompt")
    assert len(plan_shards(find_sources(str(tmp_path / "*.csv"), named), named)) == 2
    (tmp_path / "a.csv").write_text("question,answer\na,b\n")
    with pytest.raises(DataError, match=r"a\.csv: no column prompt, messages, response"):
        plan_shards(find_sources(str(tmp_path / "*.csv"), RowOptions()), RowOptions())


def test_mixed_schemas_of_parquet_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"text": "a", "n": 1}])
    write_parquet(tmp_path / "b.parquet", [{"text": "a", "n": "1"}])
    with pytest.raises(DataError, match=r"b\.parquet: column 'n' is string, in .* int64"):
        plan_shards(find_sources(str(tmp_path), RowOptions()), RowOptions())


def test_a_key_that_is_renamed_midway_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "a", "response": "b"}] * 3 + [{"prompt": "a", "reply": "b"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = RowOptions(prompt="prompt", response="response")
    shards = plan_shards(find_sources(str(path), options), options, 70)
    (fault,) = [
        row
        for shard in shards
        for row in ShardRows(shard, options, [])
        if isinstance(row, DataError)
    ]
    assert "rows.jsonl (from byte 70):1: no 'response'" in str(fault)


def test_whether_garbage_is_skipped_does_not_depend_on_the_shards(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\ngarbage\n{"text": "b"}\n')
    for shard_bytes in (1, 14, 20, 100):
        rows = read_shards(path, shard_bytes)
        assert [isinstance(row, InputRow) for row in rows] == [True, False, True]
    path.write_text('garbage\n{"text": "b"}\n')
    with pytest.raises(DataError, match="if this is a table"):
        read_shards(path, 100)


def test_a_line_that_is_too_long_is_one_malformed_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (jsonl, input_shards):
        monkeypatch.setattr(module, "MAX_ROW_BYTES", 20)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n' + json.dumps({"text": "x" * 90}) + '\n{"text": "b"}\n')
    for shard_bytes in (7, 30, 50, 1000):
        rows = read_shards(path, shard_bytes)
        assert [isinstance(row, InputRow) for row in rows] == [True, False, True]


def test_a_quote_that_ends_no_row_is_refused_when_the_work_is_planned(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,n\nhello,1\n"a"b,2\n' + "hello,3\n" * 9)
    with pytest.raises(DataError, match=r"rows.csv:3: the row that ends at byte 22 is malformed"):
        plan_shards(find_sources(str(path), RowOptions()), RowOptions(), 10)
