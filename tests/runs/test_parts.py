"""The sharded layout: records and offsets go on from part to part; a received folder is data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec import Struct

from truing.core.errors import RunError
from truing.runs.parts import (
    RecordReader,
    list_run_parts,
    locate_record_files,
    part_name,
    read_located_run_records,
    read_run_records,
    record_bytes,
)


class Row(Struct, frozen=True):
    id: str


def write_parts(folder: Path, rows: list[list[str]]) -> Path:
    for number, ids in enumerate(rows):
        part = folder / "parts" / part_name(number)
        part.mkdir(parents=True)
        (part / "samples.jsonl").write_text("".join(f'{{"id":"{i}"}}\n' for i in ids))
    names = [part_name(number) for number in range(len(rows))]
    (folder / "parts.json").write_text(json.dumps({"parts": names}))
    return folder


@pytest.mark.parametrize("rows", [[["a", "bb"], [], ["ccc"]], [["a"]], [[], ["a"], []], [[]]])
def test_offsets_go_on_from_part_to_part(tmp_path: Path, rows: list[list[str]]) -> None:
    folder = write_parts(tmp_path, rows)
    ids = [i for part in rows for i in part]
    assert [row.id for row in read_run_records(folder, "samples.jsonl", Row)] == ids
    reader = RecordReader(folder, "samples.jsonl")
    end = 0
    for start, length, row in read_located_run_records(folder, "samples.jsonl", Row):
        assert start == end
        assert reader.read(length, start) == f'{{"id":"{row.id}"}}\n'.encode()
        assert start == 0 or reader.read(1, start - 1) == b"\n"
        end += length
    assert record_bytes(folder, "samples.jsonl") == end
    assert reader.read(10, end) == b""
    reader.close()
    reader.close()


def test_labels_and_the_manifest_are_those_of_the_run(tmp_path: Path) -> None:
    folder = write_parts(tmp_path, [["a"]])
    assert locate_record_files(folder, "labels/labels.jsonl") == [folder / "labels/labels.jsonl"]
    (in_part,) = locate_record_files(folder, "judgements/a-00000000.jsonl")
    assert in_part == folder / "parts/part-000000/judgements/a-00000000.jsonl"


def test_a_run_of_one_process_has_no_parts(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text('{"id":"a"}\n')
    assert list_run_parts(tmp_path) is None
    reader = RecordReader(tmp_path, "samples.jsonl")
    assert reader.read(99, 0) == b'{"id":"a"}\n'
    assert reader.read(99, 50) == b""
    reader.close()
    assert record_bytes(tmp_path, "responses.jsonl") == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"parts": ["../../etc"]}', "is no part of a run"),
        ('{"parts": ["part-000000", "part-000000"]}', "names a part twice"),
        ('{"parts": "x"}', r"parts\.json: "),
        ("{", r"parts\.json: "),
    ],
)
def test_a_received_list_of_parts_is_checked(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "parts.json").write_text(content)
    with pytest.raises(RunError, match=message):
        list_run_parts(tmp_path)


def test_a_part_that_is_a_link_is_refused(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "run", [[]])
    part = folder / "parts" / "part-000000"
    (part / "samples.jsonl").unlink()
    part.rmdir()
    part.symlink_to(tmp_path)
    with pytest.raises(RunError, match="is a link"):
        list(read_run_records(folder, "samples.jsonl", Row))
