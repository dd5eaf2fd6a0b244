"""Compressed files: .xz files with several streams, with padding, and with what is no stream."""

from __future__ import annotations

import lzma
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import DataError
from truing.datasets.compressed import open_decompressed
from truing.datasets.readers import read_records

STREAM = lzma.compress(b'{"a": 1}\n')


@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=4))
def test_padding_follows_any_stream(
    tmp_path_factory: pytest.TempPathFactory, paddings: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "padded.jsonl.xz"
    # Zero bytes in multiples of four, also more of them than one read of the file returns.
    path.write_bytes(b"".join(STREAM + bytes(4 * count) for count in paddings))
    with closing(open_decompressed(path)) as stream:
        assert stream.read() == b'{"a": 1}\n' * len(paddings)


@pytest.mark.parametrize("rest", [b"x", b"no stream at all", bytes(4) + b"garbage", STREAM[:-9]])
def test_garbage_after_a_stream_is_a_fault_with_the_name_of_the_file(
    tmp_path: Path, rest: bytes
) -> None:
    path = tmp_path / "rows.jsonl.xz"
    path.write_bytes(STREAM + rest)
    with pytest.raises(DataError, match=r"rows\.jsonl\.xz.*cannot be unpacked"):
        list(read_records(path))
