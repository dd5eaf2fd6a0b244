"""Reading JSONL: incomplete and malformed lines of run folders, blank lines of users' files."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import Struct

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


def test_blank_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"one\n\n \r\ntwo\r\nthree")
    with file.open("rb") as stream:
        assert list(number_nonblank_lines(stream, file)) == [
            (1, b"one\n"),
            (4, b"two\r\n"),
            (5, b"three"),
        ]
