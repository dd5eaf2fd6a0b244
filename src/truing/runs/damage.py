"""Sets aside the lines of a run's file that cannot be read, so that the run can go on.

A crash of the machine may leave a block of zeros in a file, a bad disk anything. Such lines are
named, kept in `FILE.damaged` beside the file, and removed from the file; the run then asks again
for what they held.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from truing.core.jsonl import decode_line, read_complete_lines
from truing.core.private_files import (
    private_opener,
    replace_file_with,
    sync_path,
    write_error,
)
from truing.runs.append_only_file import AppendOnlyFile
from truing.runs.run_files import locate_run_file, open_run_file

T = TypeVar("T")

_COPY_BYTES = 1 << 20
_MAX_NAMED_RANGES = 5


class LineFault(Struct, frozen=True):
    """A line that cannot be used: its number from 1, its place in bytes, and why."""

    number: int
    start: int
    length: int
    reason: str


def find_line_faults(
    path: Path, kind: type[T], find_fault: Callable[[T], str | None] | None = None
) -> list[LineFault]:
    """Returns the lines that do not decode as `kind`, or in whose record `find_fault` finds one."""
    decode, encode = msgspec.json.Decoder(kind).decode, msgspec.json.Encoder().encode
    faults = []
    for number, (start, line) in enumerate(read_complete_lines(path), 1):
        try:
            record = decode_line(decode, line)
        except ValueError as error:
            faults.append(LineFault(number, start, len(line), str(error)))
            continue
        reason = find_fault(record) if find_fault is not None else None
        # A line in the form in which it is written needs no second look.
        if reason is None and encode(record) != line[:-1] and _repeats_key(line):
            reason = "a key occurs twice: parts of two lines"
        if reason is not None:
            faults.append(LineFault(number, start, len(line), reason))
    return faults


def _repeats_key(line: bytes) -> bool:
    """Whether an object of a line has a key twice, which decoders do not mind."""
    repeated = False

    def check_keys(pairs: list[tuple[str, object]]) -> None:
        nonlocal repeated
        repeated = repeated or len({key for key, _ in pairs}) < len(pairs)

    json.loads(line, object_pairs_hook=check_keys)
    return repeated


def describe_faults(path: Path, faults: list[LineFault]) -> str:
    """Returns `FILE:12: REASON`, and which other lines are damaged."""
    other_lines = describe_numbers([fault.number for fault in faults[1:]])
    suffix = f"; also {other_lines}" if other_lines else ""
    return f"{path}:{faults[0].number}: {faults[0].reason}{suffix}"


def describe_numbers(numbers: list[int]) -> str:
    """Returns line numbers as ranges: `lines 3, 7-9 and 20 more`; empty if there are none."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    range_texts = [str(a) if a == b else f"{a}-{b}" for a, b in ranges[:_MAX_NAMED_RANGES]]
    n_hidden = sum(b - a + 1 for a, b in ranges[_MAX_NAMED_RANGES:])
    if not range_texts:
        return ""
    hidden_text = f" and {n_hidden} more" if n_hidden else ""
    return f"line{'s' if len(numbers) > 1 else ''} {', '.join(range_texts)}{hidden_text}"


def set_aside_lines(folder: Path, name: str, faults: list[LineFault]) -> None:
    """Moves lines of a run's file to `NAME.damaged`; the file must not be open for writing.

    The copy is on the disk before the file changes. Raises RunError if either cannot be written.
    """
    path = locate_run_file(folder, name)
    source = open_run_file(folder, name)
    damaged_file = AppendOnlyFile(locate_run_file(folder, f"{name}.damaged"))
    try:
        for fault in faults:
            data = os.pread(source, fault.length, fault.start)
            damaged_file.append(data if data.endswith(b"\n") else data + b"\n")
        damaged_file.sync()
        size = os.fstat(source).st_size
        replace_file_with(path, lambda target: _copy_without(source, target, faults, size))
        sync_path(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        damaged_file.close()
        os.close(source)


def _copy_without(source: int, target: Path, faults: list[LineFault], size: int) -> None:
    with open(target, "wb", opener=private_opener) as stream:
        position = 0
        for start, end in [*((f.start, f.start + f.length) for f in faults), (size, size)]:
            while position < start:
                data = os.pread(source, min(_COPY_BYTES, start - position), position)
                if not data:
                    return
                stream.write(data)
                position += len(data)
            position = end
