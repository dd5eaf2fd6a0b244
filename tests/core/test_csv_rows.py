"""Tables as spreadsheets write them: encodings, separators, faults with their lines."""

from __future__ import annotations

import csv
import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.core import csv_rows
from truing.core.csv_rows import CsvTable, UnreadableRest, decode_lines, find_delimiter
from truing.core.errors import DataError

PATH = Path("a.csv")


def read_table(data: bytes, delimiter: str | None = None) -> CsvTable:
    return CsvTable(decode_lines(io.BytesIO(data), PATH), PATH, delimiter)


# Without characters that are no text in UTF-16, and without a header's line breaks.
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(CELLS, CELLS), max_size=5),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]),
)
def test_every_table_that_is_written_is_read(
    rows: list[tuple[str, str]], delimiter: str, encoding: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    data = text.getvalue().encode(encoding)
    if encoding == "utf-16-le":
        data = b"\xff\xfe" + data
    table = read_table(data)
    assert (table.header, table.delimiter) == (["a", "b"], delimiter)
    assert table.has_mark == (encoding != "utf-8")
    assert [tuple(r[1].values()) for r in table.rows() if not isinstance(r, DataError)] == rows


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [("a,b;c\n", ","), ("a;b\n", ";"), ('"a,b";c\n', ";"), ("a\tb\n", "\t"), ("text\n", ",")],
)
def test_the_delimiter_is_what_the_header_has_outside_of_quotes(
    header: str, delimiter: str
) -> None:
    assert find_delimiter(header) == delimiter


def test_the_line_for_excel_is_no_header() -> None:
    table = read_table(b"sep=;\r\na,1;b\r\nx;y\r\nz\r\n")
    row, fault = table.rows()
    assert row == (3, {"a,1": "x", "b": "y"})
    assert str(fault).startswith("a.csv:4: fewer fields")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\xff,a\n1,2\n", "a.csv:1: invalid UTF-8"),
        ("a,b\n".encode("utf-16-le"), "a.csv:1: a zero byte"),
        (b'"a,b\n', "a.csv:1: not CSV"),
    ],
)
def test_a_header_that_cannot_be_read(data: bytes, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        read_table(data)


def test_what_loses_the_rest_is_the_last_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "_CHUNK_BYTES", 4)
    broken = "a,b\n1,2\n3,4".encode("utf-16") + b"\x00"
    assert [type(row) for row in read_table(broken).rows()] == [tuple, UnreadableRest]
    monkeypatch.setattr(csv_rows, "MAX_ROW_BYTES", 1000)
    unclosed = b'a,b\n"' + b"x\n" * 600 + b'",2\n3,4\n'
    (fault,) = read_table(unclosed).rows()
    assert isinstance(fault, UnreadableRest)
    assert "is a quote not closed?" in str(fault)


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a;b\n" + "some text;more text\n" * 50_000, encoding="utf-16")
    tracemalloc.start()
    with path.open("rb") as stream:
        assert sum(1 for _ in CsvTable(decode_lines(stream, path), path).rows()) == 50_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20
