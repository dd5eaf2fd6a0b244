"""Lines of JSONL files: of run folders, whose last line a crash may have cut off, and of files that users give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from truing.core.errors import RunError

T = TypeVar("T")
_BUFFER_BYTES = 1 << 20


def read_complete_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields offset and bytes of each line of a run folder's file, newline included.

    A last line without its newline is being written, or was cut off by a crash: it is not there yet.
    A file that does not exist has no lines. One line is in memory at a time.
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
    """Yields offset, length and the record `kind` of each whole line.

    Raises RunError with file and line number for a line that is no such record.
    """
    decode = msgspec.json.Decoder(kind).decode
    for number, (offset, line) in enumerate(read_complete_lines(path), 1):
        try:
            yield offset, len(line), decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RunError(f"{path}:{number}: {error}") from error


def read_records(path: Path, kind: type[T]) -> Iterator[T]:
    """Yields the record `kind` of each whole line; raises RunError as `read_located_records` does."""
    return (record for _, _, record in read_located_records(path, kind))


def number_nonblank_lines(stream: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields number, from 1, and bytes of each line that is not blank, of a file that a user gave.

    Such a file is complete, so a last line without its newline counts.
    """
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield number, line
