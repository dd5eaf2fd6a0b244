"""Reading JSONL: incomplete and malformed lines of run folders, blank lines of users' files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Struct

from truing.core import jsonl
from truing.core.errors import RunError
from truing.core.jsonl import (
    number_nonblank_lines,
    read_complete_lines,
    read_located_records,
    read_records,
)


class Record(Struct, frozen=True):
    id: str


def test_incomplete_last_line_and_missing_file_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    assert list(read_records(file, Record)) == [] == list(read_complete_lines(file))
    file.write_bytes(b'{"id":"a"}\n{"id":"b","more":1}\n{"id":"c"')
    assert list(read_records(file, Record)) == [Record("a"), Record("b")]
    assert list(read_located_records(file, Record)) == [(0, 11, Record("a")), (11, 20, Record("b"))]


@pytest.mark.parametrize("malformed", [b"{}", b"[", b"", b'{"id":"\xff"}'])
def test_malformed_line_raises_with_its_number(tmp_path: Path, malformed: bytes) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"id":"a"}\n' + malformed + b"\n")
    records = read_records(file, Record)
    assert next(records) == Record("a")
    with pytest.raises(RunError, match=r"a\.jsonl:2: "):
        next(records)


# Two records in two lines, of which the second begins in the first line.
@example(pieces=[b'{"id":"a"}', b'{"id":', b"\n", b'"c"}', b"\n"], block_bytes=40)
@given(
    pieces=st.lists(
        st.sampled_from(
            [
                b'{"id":"a"}',
                b'{"id":"b","n":[1]}',
                b"\n",
                b"\n",
                b"\n",
                b'{"id":',
                b'"c"}',
                b" ",
                b"\0",
            ]
        ),
        max_size=30,
    ),
    block_bytes=st.integers(1, 40),
)
def test_blocks_of_lines_are_read_like_single_lines(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], block_bytes: int
) -> None:
    file = tmp_path_factory.mktemp("blocks") / "a.jsonl"
    file.write_bytes(b"".join(pieces))

    def read_all(records: Iterator[Record]) -> tuple[list[Record], str]:
        seen: list[Record] = []
        try:
            seen.extend(records)
        except RunError as error:
            return seen, str(error)
        return seen, ""

    by_line = read_all(record for _, _, record in read_located_records(file, Record))
    with mock.patch.object(jsonl, "_BLOCK_BYTES", block_bytes):
        assert read_all(read_records(file, Record)) == by_line


def test_a_line_that_is_too_long_is_an_error_with_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 30)
    file = tmp_path / "a.jsonl"
    for ending in (b"\n", b""):
        file.write_bytes(b'{"id":"a"}\n{"id":"' + b"b" * 40 + b'"}' + ending)
        records = read_records(file, Record)
        assert next(records) == Record("a")
        with pytest.raises(RunError, match=r"a\.jsonl:2: a line of more than 30 bytes"):
            next(records)


def test_blank_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"one\n\n \r\ntwo\r\nthree")
    with file.open("rb") as stream:
        assert list(number_nonblank_lines(stream, file)) == [
            (1, b"one\n"),
            (4, b"two\r\n"),
            (5, b"three"),
        ]
