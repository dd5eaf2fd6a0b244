"""Opens data files, compressed ones too, without trusting what they expand to."""

from __future__ import annotations

import gzip
import io
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from truing.core.bounds import FREE_EXPANDED_BYTES, MAX_EXPANSION, MAX_ROW_BYTES
from truing.core.errors import DataError


def open_decompressed(path: Path) -> IO[bytes]:
    """Opens a file for reading; decompresses .gz and .xz, up to a bound (`MAX_EXPANSION`)."""
    if path.suffix.lower() == ".gz":
        return _bound(path, cast("IO[bytes]", gzip.open(path, "rb")))
    if path.suffix.lower() == ".xz":
        return _bound(path, cast("IO[bytes]", lzma.open(path, "rb")))
    return path.open("rb")


def _bound(path: Path, stream: IO[bytes]) -> IO[bytes]:
    raw = _CountedBytes(stream, path)
    return cast("IO[bytes]", io.BufferedReader(raw, buffer_size=1 << 18))


class _CountedBytes(io.RawIOBase):
    """A decompressed file; raises DataError if it has far more bytes than text compresses to.

    A file of a megabyte can hold a gigabyte of zeros, which no disk and no memory has to take.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._count = 0
        size = path.stat().st_size
        self._max_count = max(FREE_EXPANDED_BYTES, MAX_EXPANSION * size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._count += len(data)
        if self._count > self._max_count:
            raise DataError(
                f"{self._path}: expands to more than {self._max_count / 2**20:,.0f} MiB, over "
                f"{MAX_EXPANSION} times its size; if it is no attack, unpack it and name that file"
            )
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def read_lines(stream: IO[bytes], path: Path) -> Iterator[tuple[int, bytes | DataError]]:
    """Yields the number (from 1) and the bytes of each line; a DataError for one that is too long.

    Memory: one line of at most `MAX_ROW_BYTES`.
    """
    number = 0
    while line := stream.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) <= MAX_ROW_BYTES:
            yield number, line
            continue
        what = f"a line of more than {MAX_ROW_BYTES >> 20} MiB"
        yield number, DataError.at(path, number, what)
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_ROW_BYTES)
