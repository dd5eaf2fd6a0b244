"""Reads JSONL files: those of run folders, whose last line may be incomplete, and users' files."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from truing.core.bounds import MAX_ROW_BYTES
from truing.core.errors import DataError, RunError
from truing.core.input_files import open_input

T = TypeVar("T")

MAX_LINE_BYTES = 128 << 20
"""A longer line of a run's file is an error: nothing that is written there is nearly as long."""

_BLOCK_BYTES = 1 << 18


def read_complete_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the offset and the bytes (newline included) of each complete line of a run's file.

    A last line without a newline is still being written, or was cut off by a crash, and is skipped.
    A missing file has no lines. Memory: one line at a time, of which no more than
    `MAX_LINE_BYTES + 1` bytes are read: a longer line comes in parts, without newline but the last.
    """
    for offset, line in _read_chunks(path, lambda stream: stream.readline(MAX_LINE_BYTES + 1)):
        if not line.endswith(b"\n") and len(line) <= MAX_LINE_BYTES:
            return
        yield offset, line


def _read_chunks(path: Path, read: Callable[[BinaryIO], bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields the offset and the bytes of what `read` returns, until that is empty.

    A missing file has none. Raises RunError, with the offset, where the file cannot be read.
    """
    if not path.exists():
        return
    offset = 0
    try:
        stream = open_input(path)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from error
    with stream:
        try:
            while chunk := read(stream):
                yield offset, chunk
                offset += len(chunk)
        except OSError as error:
            raise RunError(f"{path}: {error.strerror} at byte {offset:,}") from error


def read_located_records(path: Path, kind: type[T]) -> Iterator[tuple[int, int, T]]:
    """Yields the offset, the length in bytes and the decoded record of each complete line.

    Raises RunError with file and line number if a line does not decode as `kind`.
    """
    decode = msgspec.json.Decoder(kind).decode
    for number, (offset, line) in enumerate(read_complete_lines(path), 1):
        try:
            record = decode_line(decode, line)
        except ValueError as error:
            raise RunError(f"{path}:{number}: {error}") from error
        yield offset, len(line), record


def decode_line(decode: Callable[[bytes], T], line: bytes) -> T:
    """Returns the record of a line; raises ValueError if it is no record, or is too long."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"a line of more than {MAX_LINE_BYTES:,} bytes")
    try:
        return decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # A block of zeros is what a crash of the machine leaves in a file.
        reason = "bytes that are zero: " if b"\0" in line else ""
        raise ValueError(f"{reason}{error}") from error


def read_records(path: Path, kind: type[T]) -> Iterator[T]:
    """Yields the record of each complete line; raises RunError like `read_located_records`.

    Lines are decoded a block at a time, in half of the time that single ones take.
    """
    decoder = msgspec.json.Decoder(kind)
    n_lines = 0
    for block in _read_blocks(path):
        n_of_block = block.count(b"\n")
        records: list[T] = []
        if len(block) <= MAX_LINE_BYTES and _has_whole_objects(block, n_of_block):
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                records = decoder.decode_lines(block)
        if len(records) == n_of_block:
            yield from records
        else:
            yield from _decode_each(path, block, n_lines, decoder.decode)
        n_lines += n_of_block


def _has_whole_objects(block: bytes, n_lines: int) -> bool:
    """Whether each line begins with `{` and ends with `}`.

    Then no object goes on in the next line: within one, no `{` may follow a `}`. So a block that
    decodes to as many objects as it has lines has one in each.
    """
    return (
        block.startswith(b"{")
        and block.count(b"\n{") == n_lines - 1
        and block.count(b"}\n") == n_lines
    )


def _read_blocks(path: Path) -> Iterator[bytes]:
    """Yields the complete lines of a run's file, many together; a longer line than
    `MAX_LINE_BYTES` comes in part.
    """
    for _, block in _read_chunks(path, _read_block):
        n_complete = block.rfind(b"\n") + 1
        if len(block) - n_complete > MAX_LINE_BYTES:
            yield block
            return
        if n_complete:
            yield block[:n_complete]


def _read_block(stream: BinaryIO) -> bytes:
    """Returns the next bytes up to the end of a line, or to more than `MAX_LINE_BYTES` of one."""
    block = stream.read(_BLOCK_BYTES)
    return block if block.endswith(b"\n") else block + stream.readline(MAX_LINE_BYTES + 1)


def _decode_each(
    path: Path, block: bytes, n_lines_before: int, decode: Callable[[bytes], T]
) -> Iterator[T]:
    """Yields the records of a block line by line, up to the line that is none."""
    for number, line in enumerate(io.BytesIO(block), n_lines_before + 1):
        try:
            yield decode_line(decode, line)
        except ValueError as error:
            raise RunError(f"{path}:{number}: {error}") from error


def number_nonblank_lines(stream: BinaryIO, path: object) -> Iterator[tuple[int, bytes]]:
    """Yields the number (from 1) and the bytes of each line that is not blank, of a user's file.

    Such a file is complete, so a last line without a newline counts. Raises DataError, which names
    `path`, for a line of more than `MAX_ROW_BYTES`.
    """
    for number, line in number_lines_or_faults(stream, path):
        if isinstance(line, DataError):
            raise line
        yield number, line


def number_lines_or_faults(
    stream: BinaryIO, path: object
) -> Iterator[tuple[int, bytes | DataError]]:
    """Yields lines like `number_nonblank_lines`, and the DataError of one that is too long, which
    is left out if the caller goes on.
    """
    number = 0
    while line := stream.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            reason = f"a line of more than {MAX_ROW_BYTES >> 20} MiB"
            yield number, DataError.at(path, number, reason)
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_ROW_BYTES)
        elif line.strip():
            yield number, line
