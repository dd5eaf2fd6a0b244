"""Reads JSONL files: those of run folders, whose last line may be incomplete, and users' files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from truing.core.errors import RunError

T = TypeVar("T")
_BUFFER_BYTES = 1 << 20


def read_complete_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the offset and the bytes (newline included) of each complete line of a run's file.

    A last line without a newline is still being written, or was cut off by a crash, and is skipped.
    A missing file has no lines. Memory: one line at a time.
    """
    if not path.exists():
        return
    offset = 0
    with path.open("rb", buffering=_BUFFER_BYTES) as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                return
            yield offset, line
            offset += len(line)


def read_located_records(path: Path, kind: type[T]) -> Iterator[tuple[int, int, T]]:
    """Yields the offset, the length in bytes and the decoded record of each complete line.

    Raises RunError with file and line number if a line does not decode as `kind`.
    """
    decode = msgspec.json.Decoder(kind).decode
    for number, (offset, line) in enumerate(read_complete_lines(path), 1):
        try:
            yield offset, len(line), decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RunError(f"{path}:{number}: {error}") from error


def read_records(path: Path, kind: type[T]) -> Iterator[T]:
    """Yields the record of each complete line; raises RunError like `read_located_records`."""
    return (record for _, _, record in read_located_records(path, kind))


def number_nonblank_lines(stream: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields the number (from 1) and the bytes of each line that is not blank, of a user's file.

    Such a file is complete, so a last line without a newline counts.
    """
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield number, line
