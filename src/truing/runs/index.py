"""Compact look-up for runs of any size: which sample stands where, and which lines a file already holds.

A Python dict of 100,000 ids costs about 17 MiB; `IdIndex` costs 3 MiB and `Ledger` 12 bytes a line, so that the memory
of a run stays flat. Ids are kept as 64-bit hashes of this process (two ids in 200,000 collide with a chance of 1e-9).
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from truing.core.errors import RunError
from truing.core.jsonl import read_located_records
from truing.core.types import Sample

T = TypeVar("T")
_MASK = (1 << 64) - 1


class ResponseKey(Struct, frozen=True):
    """The part of a response or a judgement that says which answer it belongs to."""

    sample_id: str
    index: int = 0


class SampleKey(Struct, frozen=True):
    """The part of a sample that says which it is."""

    id: str
    parent: str | None = None


class IdIndex:
    """Id -> position, in an open-addressed table of 12 bytes a slot."""

    def __init__(self) -> None:
        self._size = 1 << 10
        self._keys = array("Q", bytes(8 * self._size))
        self._values = array("I", bytes(4 * self._size))
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def add(self, id_: str, position: int) -> bool:
        """Adds an id; False if it stood there before (its first position stays)."""
        return self._put((hash(id_) & _MASK) or 1, position)

    def _put(self, key: int, position: int) -> bool:
        keys, mask = self._keys, self._size - 1
        at = key & mask
        while (found := keys[at]) != 0:
            if found == key:
                return False
            at = (at + 1) & mask
        keys[at] = key
        self._values[at] = position
        self._used += 1
        if self._used * 3 > self._size * 2:
            self._grow()
        return True

    def _grow(self) -> None:
        old_keys, old_values = self._keys, self._values
        self._size *= 2
        self._keys = array("Q", bytes(8 * self._size))
        self._values = array("I", bytes(4 * self._size))
        self._used = 0
        for key, value in zip(old_keys, old_values):
            if key:
                self._put(key, value)

    def get(self, id_: str) -> int | None:
        """The position of an id, or none."""
        key = (hash(id_) & _MASK) or 1
        keys, mask = self._keys, self._size - 1
        at = key & mask
        while (found := keys[at]) != 0:
            if found == key:
                return self._values[at]
            at = (at + 1) & mask
        return None


class LineSpans:
    """Where the lines of a file start and how long they are, by key; a length of 0 means that there is none."""

    def __init__(self, size: int) -> None:
        self.starts = array("Q", bytes(8 * size))
        self.lengths = array("I", bytes(4 * size))
        self.count = 0
        self.ordered = True
        self._end = -1

    def __len__(self) -> int:
        return len(self.lengths)

    def __contains__(self, key: int) -> bool:
        return self.lengths[key] != 0

    def add(self, key: int, start: int, length: int) -> bool:
        """Notes a line; False if the key had one before (the first stays)."""
        if self.lengths[key]:
            self.ordered = False  # a second line for one key: the rewrite at the end drops it
            return False
        self.starts[key] = start
        self.lengths[key] = length
        self.count += 1
        if key <= self._end:
            self.ordered = False
        self._end = key
        return True

    def remove(self, key: int) -> None:
        """Takes a line out, so that the rewrite drops it."""
        if self.lengths[key]:
            self.lengths[key] = 0
            self.count -= 1
            self.ordered = False


class SampleStore:
    """Random access to the lines of a finished file of samples, by position."""

    def __init__(self, path: Path) -> None:
        self.ids = IdIndex()
        self._starts = array("Q")
        self._lengths = array("I")
        for at, length, named in read_located_records(path, SampleKey):
            if not self.ids.add(named.id, len(self._starts)):
                raise RunError(f"{path}: the id {named.id!r} stands more than once")
            self._starts.append(at)
            self._lengths.append(length)
        self._decode = msgspec.json.Decoder(Sample).decode
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, position: int) -> Sample:
        """Decodes the line at a position."""
        return self._decode(os.pread(self._fd, self._lengths[position], self._starts[position]))

    def close(self) -> None:
        """Lets go of the file; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
