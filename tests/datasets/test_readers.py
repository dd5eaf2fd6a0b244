from __future__ import annotations

import gzip
import lzma
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from truing.core import csv_rows
from truing.core.errors import DataError, MissingExtra
from truing.datasets import compressed
from truing.datasets.readers import Record, read_records


def both(path: Path) -> tuple[list[Record], list[str]]:
    records = list(read_records(path))
    return [r for r in records if isinstance(r, Record)], [
        str(r) for r in records if isinstance(r, DataError)
    ]


def test_jsonl_by_newline_only(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"a": "x\u2028y"}\r\n\n{"a": "z"}'.encode())
    rows, faults = both(path)
    assert [(r.data["a"], r.place) for r in rows] == [
        ("x\u2028y", ":1"),
        ("z", ":3"),
    ] and not faults


def test_jsonl_faults_name_the_line_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n[1]\n{"a": "\xff"}\n{"a": 2}\n' + b"[" * 100_000 + b"\n")
    rows, faults = both(path)
    assert [r.data["a"] for r in rows] == [1, 2]
    assert [f.split(": ")[0].rsplit(":", 1)[1] for f in faults] == ["2", "3", "4", "6"]
    assert "invalid UTF-8" in faults[2] and "nested too deep" in faults[3]


def test_jsonl_that_is_one_array(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'[{"a": 1},\n {"a": 2}]'))
    rows, faults = both(path)
    assert [(r.data["a"], r.place) for r in rows] == [(1, "[0]"), (2, "[1]")] and not faults


def test_json_faults(tmp_path: Path) -> None:
    for content, word in (
        (b'[{"a": 1},\n{"a" 2}]', "a.json:2: not JSON"),
        (b'{"a": 1}', "expected an array"),
        (b'[\n"\xff"]', "a.json:2: invalid UTF-8"),
    ):
        path = tmp_path / "a.json"
        path.write_bytes(content)
        with pytest.raises(DataError, match=word):
            list(read_records(path))
    path.write_text('[{"a": 1}, 2]')
    rows, faults = both(path)
    assert len(rows) == 1 and "a.json[1]: expected an object, got int" in faults[0]


def test_csv_lines_count_newlines_inside_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n"x\ny",1\n2\n3,4,5\n6,7\n\xff,8\n9,10\n')
    rows, faults = both(path)
    assert [(r.data["a"], r.place) for r in rows] == [("x\ny", ":2"), ("6", ":6"), ("9", ":8")]
    assert [f.rsplit("a.csv:", 1)[1].split(":")[0] for f in faults] == ["4", "5", "7"]


def test_columns_of_one_name_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b,a,a\n1,2,3,4\n")
    assert both(path)[0][0].data == {"a": "1", "b": "2", "a.2": "3", "a.3": "4"}


def test_tsv_and_open_quote(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("a\tb\n1\t2\n")
    assert both(path)[0][0].data == {"a": "1", "b": "2"}
    path = tmp_path / "b.csv"
    path.write_text('a,b\n"1,2\n')
    assert "not CSV" in both(path)[1][0]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"a": ["x", None], "b": [[1], [2, 3]]}), path)
    rows, _ = both(path)
    assert rows[1].data == {"a": None, "b": [2, 3]} and rows[1].place == "[1]"
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="not Parquet"):
        list(read_records(path))


def test_parquet_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises((MissingExtra, ModuleNotFoundError)) as caught:
        list(read_records(tmp_path / "a.parquet"))
    assert isinstance(caught.value, MissingExtra) and "truing[hub]" in str(caught.value)


def test_no_file_no_format_broken_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(read_records(tmp_path / "a.jsonl"))
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(DataError, match="unknown format .docx"):
        list(read_records(tmp_path / "a.docx"))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 99)[:-20])
    with pytest.raises(DataError, match="cannot be unpacked"):
        list(read_records(tmp_path / "a.jsonl.gz"))


def test_accessors() -> None:
    row = Record(
        "f",
        ":7",
        {"t": "x", "n": "3", "b": "TRUE", "l": "[1, 2]", "m": {"k": 1}, "e": " ", "z": None},
    )
    assert (row.text("t"), row.number("n"), row.flag("b"), row.list_value("l")) == (
        "x",
        3.0,
        True,
        [1, 2],
    )
    assert row.nested("m").value("k") == 1 and row.optional_text("z") is None and not row.has("z")
    for call, word in (
        (lambda: row.text("tt"), "f:7: no column 'tt'; did you mean 't'"),
        (lambda: row.text("e"), "empty text"),
        (lambda: row.text("m"), "expected text, got dict"),
        (lambda: row.number("t"), "expected a number"),
        (lambda: row.flag("n"), "true or false"),
        (lambda: row.list_value("m"), "expected a list"),
        (lambda: row.mapping("t"), "expected an object"),
        (lambda: row.choice("t", ["a", "b"]), "none of a, b"),
        (lambda: row.integer("n", low=0, high=2), "whole number from 0 to 2"),
    ):
        with pytest.raises(DataError, match=word):
            call()


def test_an_error_never_shows_the_text_of_a_row() -> None:
    secret = "some long text of a row that nobody should see in a log"
    for call in ("number", "flag"):
        with pytest.raises(DataError) as caught:
            getattr(Record("f", ":1", {"a": secret}), call)("a")
        assert secret[:25] not in str(caught.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-1e400", float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize("accessor", ["number", "integer"])
def test_numbers_must_be_finite(value: object, accessor: str) -> None:
    with pytest.raises(DataError, match="f:1: k: expected a number"):
        getattr(Record("f", ":1", {"k": value}), accessor)("k")


# Generation is slow on a loaded machine, which says nothing about the reader.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.text() | st.integers() | st.none()), max_size=8
    )
)
def test_jsonl_round_trip(rows: list[dict[str, object]]) -> None:
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_text(
            "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows),
            encoding="utf-8",
            newline="\n",
        )
        assert [r.data for r in read_records(path) if isinstance(r, Record)] == rows


# -- what somebody else wrote


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"[" * 200 + b"]" * 200, "nested too deep"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested too deep (more than 128 levels)"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number of too many digits"),
        (rb'{"a": "x \ud83d y"}', "half of a surrogate pair"),
        (rb'{"\udc00": 1}', "half of a surrogate pair"),
        (b'{"a": "\xed\xa0\x80"}', "invalid UTF-8"),
        (b'{"a": "\x00"}', "not JSON"),
    ],
)
def test_a_hostile_row_is_one_fault_with_its_place(tmp_path: Path, line: bytes, what: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": "\\ud83d\\ude00"}\n')
    rows, faults = both(path)
    assert [r.data["a"] for r in rows] == [1, "\U0001f600"]
    assert len(faults) == 1 and "a.jsonl:2: " in faults[0] and what in faults[0]


@given(st.text(alphabet='[]{}"\\a,:0 ', max_size=60))
@settings(max_examples=60)
def test_any_text_is_a_row_or_a_fault(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_text('{"a": 1}\n' + text.replace("\n", " "), encoding="utf-8")
    rows, faults = both(path)
    assert rows and len(rows) + len(faults) <= 2


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_decompression_bomb_ends_with_its_name_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(compressed, "FREE_EXPANDED_BYTES", 1 << 16)
    monkeypatch.setattr(compressed, "MAX_EXPANSION", 20)
    compress = gzip.compress if suffix == ".gz" else lzma.compress
    path = tmp_path / f"bomb.jsonl{suffix}"
    for content in (b" " * (16 << 20), b'{"prompt": "x"}\n' * 40_000):
        path.write_bytes(compress(content))
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match="bomb.jsonl.*expands to more than 0 MiB"):
                for _ in read_records(path):
                    pass
            assert tracemalloc.get_traced_memory()[1] < 14 << 20  # of which xz takes 9
        finally:
            tracemalloc.stop()
    # What text compresses to is read.
    path.write_bytes(compress(b"".join(b'{"a": %d}\n' % n for n in range(1000))))
    assert len(both(path)[0]) == 1000


def test_an_xz_file_with_a_huge_dictionary_is_a_fault_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.xz"
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    packed = lzma.compress(b'{"a": 1}\n', filters=filters)
    path.write_bytes(packed + b"\0" * 4 + packed)  # streams in a row, padded
    assert len(both(path)[0]) == 2
    # The byte that names the size of the dictionary: 40 is 4 GiB. The header has a checksum.
    size = 4 * (packed[12] + 1)
    header = packed[12:16] + bytes([40]) + packed[17 : 12 + size - 4]
    checksum = zlib.crc32(header).to_bytes(4, "little")
    path.write_bytes(packed[:12] + header + checksum + packed[12 + size :])
    with pytest.raises(DataError, match=r"a.jsonl.xz.*cannot be unpacked: Memory usage limit"):
        both(path)
    for damaged in (b"", packed[:-8], packed + b"no stream"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be unpacked"):
            both(path)


def test_a_long_line_is_one_fault_and_the_next_rows_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "MAX_ROW_BYTES", 1000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "' + b"x" * 5000 + b'"}\n{"a": 2}\n')
    rows, faults = both(path)
    assert [(r.data["a"], r.place) for r in rows] == [(1, ":1"), (2, ":3")]
    assert len(faults) == 1 and "a.jsonl:2: a line of more than" in faults[0]


def test_a_large_document_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truing.datasets.readers.MAX_DOCUMENT_BYTES", 100)
    path = tmp_path / "a.json"
    path.write_text("[" + '{"a": 1},' * 50 + '{"a": 1}]')
    with pytest.raises(DataError, match="write it as JSONL"):
        list(read_records(path))


@pytest.mark.parametrize("cut", [20, 40, 60])
def test_a_damaged_archive_names_the_line(tmp_path: Path, cut: int) -> None:
    data = bytearray(gzip.compress(b'{"a": "some text"}\n' * 3 + bytes(range(200))))
    data[cut : cut + 3] = b"\xff\xff\xff"
    for suffix in ("jsonl.gz", "json.gz"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(bytes(data))
        try:
            faults = both(path)[1]
        except DataError as error:
            faults = [str(error)]
        assert faults and "a.json" in faults[0]
