"""The sharded layout of a run: one folder for all of it, and parts that are run folders themselves.

    manifest.json   parts.json   summary.json   labels/
    parts/part-000000/   manifest.json   samples.jsonl   responses.jsonl   judgements/
    parts/part-000001/   ...

The records of the run are those of its parts, one part after the other: as if their files were one
file. `parts.json` is written when all samples are in their parts. Readers ask `locate_record_files`
and hold one line in memory at a time, whatever the layout.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from truing.core.errors import RunError
from truing.core.input_files import read_input_bytes
from truing.core.jsonl import read_located_records, read_records
from truing.runs.run_files import locate_run_file, open_run_file

T = TypeVar("T")

PARTS_FILE = "parts.json"
_PART_NAME = re.compile(r"part-[0-9]{6}")
_RECORD_FILES = ("samples.jsonl", "parents.jsonl", "responses.jsonl")


class RunParts(Struct, frozen=True, kw_only=True):
    """The names of the parts, in the order of the samples."""

    parts: tuple[str, ...]


def part_name(number: int) -> str:
    """Returns the name of a part by its number, from 0."""
    return f"part-{number:06d}"


def list_run_parts(folder: Path) -> tuple[str, ...] | None:
    """Returns the names of a run's parts; None for a run in the layout of one process.

    Raises RunError for a file `parts.json` that cannot be read or names other folders.
    """
    path = locate_run_file(folder, PARTS_FILE)
    if not path.exists():
        return None
    try:
        part_names = msgspec.json.decode(read_input_bytes(path), type=RunParts).parts
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: {error}") from error
    for name in part_names:
        if not _PART_NAME.fullmatch(name):
            raise RunError(f"{path}: {name!r:.200} is no part of a run (part-NNNNNN)")
    if len(set(part_names)) < len(part_names):
        raise RunError(f"{path}: names a part twice")
    return part_names


def locate_record_files(folder: Path, name: str) -> list[Path]:
    """Returns the files that hold the records of a run's file, in order; they need not exist.

    In a sharded run samples, answers and judgements lie in its parts; labels do not.
    """
    parts = None
    if name in _RECORD_FILES or name.startswith("judgements/"):
        parts = list_run_parts(folder)
    if parts is None:
        return [locate_run_file(folder, name)]
    return [locate_run_file(folder, f"parts/{part}/{name}") for part in parts]


def record_bytes(folder: Path, name: str) -> int:
    """Returns the size in bytes of a run's file, of all parts together; 0 if there is none."""
    return sum(file_bytes(path) for path in locate_record_files(folder, name))


def file_bytes(path: Path) -> int:
    """Returns the size of a file in bytes, 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def read_run_records(folder: Path, name: str, kind: type[T]) -> Iterator[T]:
    """Yields the records of a run's file, of a sharded run those of all parts.

    A file that does not exist has none. Raises RunError with file and line if a line does not
    decode as `kind`, and like `locate_run_file`.
    """
    for path in locate_record_files(folder, name):
        yield from read_records(path, kind)


def read_located_run_records(
    folder: Path, name: str, kind: type[T]
) -> Iterator[tuple[int, int, T]]:
    """Like `read_run_records`, with the offset and the length in bytes of each line.

    In a sharded run the offsets go on from part to part, as `RecordReader` understands them.
    """
    base = 0
    for path in locate_record_files(folder, name):
        size = file_bytes(path)
        for start, length, record in read_located_records(path, kind):
            yield base + start, length, record
        base += size


class RecordReader:
    """Random access to a run's file, by the offsets of `read_located_run_records`.

    Raises RunError like `open_run_file`.
    """

    def __init__(self, folder: Path, name: str) -> None:
        part_names = list_run_parts(folder)
        names = [name] if part_names is None else [f"parts/{part}/{name}" for part in part_names]
        self._folder = folder
        self._names: list[str] = []
        self._starts: list[int] = []
        start = 0
        for part in names:
            size = file_bytes(locate_run_file(folder, part))
            if size or part_names is None:
                self._names.append(part)
                self._starts.append(start)
                start += size
        self._size = start
        self._descriptors: dict[int, int] = {}
        if part_names is None:
            self._open(0)

    def _open(self, number: int) -> int:
        if number not in self._descriptors:
            self._descriptors[number] = open_run_file(self._folder, self._names[number])
        return self._descriptors[number]

    def read(self, length: int, start: int) -> bytes:
        """Returns up to `length` bytes from an offset; raises OSError."""
        number = bisect_right(self._starts, start) - 1
        if number < 0 or (start >= self._size and len(self._names) != 1):
            return b""
        return os.pread(self._open(number), length, start - self._starts[number])

    def close(self) -> None:
        """Closes the files; may be called twice."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
