"""Lines of run folders, torn or bad, and lines of files that users give."""

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


class Named(Struct, frozen=True):
    id: str


def test_a_torn_last_line_and_a_missing_file_have_no_records(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    assert list(read_records(file, Named)) == [] == list(read_complete_lines(file))
    file.write_bytes(b'{"id":"a"}\n{"id":"b","more":1}\n{"id":"c"')
    assert list(read_records(file, Named)) == [Named("a"), Named("b")]
    assert list(read_located_records(file, Named)) == [(0, 11, Named("a")), (11, 20, Named("b"))]


@pytest.mark.parametrize("bad", [b"{}", b"[", b"", b'{"id":"\xff"}'])
def test_a_bad_line_is_named(tmp_path: Path, bad: bytes) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"id":"a"}\n' + bad + b"\n")
    records = read_records(file, Named)
    assert next(records) == Named("a")
    with pytest.raises(RunError, match=r"a\.jsonl:2: "):
        next(records)


def test_blank_lines_of_a_users_file_count_and_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"one\n\n \r\ntwo\r\nthree")
    with file.open("rb") as stream:
        assert list(number_nonblank_lines(stream)) == [
            (1, b"one\n"),
            (4, b"two\r\n"),
            (5, b"three"),
        ]
