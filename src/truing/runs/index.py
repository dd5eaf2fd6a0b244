"""Compact indexes over the files of a run: positions of samples, and which lines a file holds.

Memory: a Python dict of 100,000 ids takes about 17 MiB, `IdIndex` 3 MiB; `LineSpans` takes 12 bytes
for each line. Ids are stored as 64-bit hashes (salted for each process); two of 200,000 ids collide
with a probability of 1e-9.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import msgspec
from msgspec import Struct

from truing.core.errors import RunError
from truing.core.jsonl import read_located_records
from truing.core.types import AnswerIndex, Sample

_HASH_MASK = (1 << 64) - 1
_MIN_CELLS = 200_000


class ResponseKey(Struct, frozen=True):
    """The fields of a stored response or judgement that identify the response."""

    sample_id: str
    index: AnswerIndex = 0


def max_cells_per_sample(n_bytes: int, samples: int) -> int:
    """Returns how many cells for each sample a table of a file of that size may have.

    Tables and indexes have a cell for each sample and index, so that one line with the index 9999,
    in a folder that was received, would make them large without limit. A line has 100 bytes or
    more, so of the cells that are allowed here a run of truing fills one in a hundred at least.
    """
    return (4 * n_bytes + _MIN_CELLS) // max(1, samples)


def check_cells(n_cells: int, max_cells: int, path: Path) -> None:
    """Raises RunError if a table would have far more cells for each sample than its file fills."""
    if n_cells > max_cells:
        raise RunError(
            f"{path}: has indexes, questions or categories for {n_cells:,} cells a sample, far "
            "more than its lines fill"
        )


class SampleKey(Struct, frozen=True):
    """The fields of a stored sample that identify it."""

    id: str
    parent: str | None = None


class IdIndex:
    """A map from id to position: a hash table with linear probing, 12 bytes a slot."""

    def __init__(self) -> None:
        self._used = 0
        self._allocate(1 << 10)

    def _allocate(self, slots: int) -> None:
        # A power of two, so that `hash & (slots - 1)` is a slot. A key of 0 marks an empty slot.
        self._slots = slots
        self._keys = array("Q", bytes(8 * slots))
        self._positions = array("I", bytes(4 * slots))

    def __len__(self) -> int:
        return self._used

    def add(self, id_: str, position: int) -> bool:
        """Adds an id; returns False, and keeps the first position, if the id is already there."""
        return self._insert(_hash_id(id_), position)

    def get(self, id_: str) -> int | None:
        """Returns the position of an id, or None."""
        key = _hash_id(id_)
        slot = self._find_slot(key)
        return self._positions[slot] if self._keys[slot] == key else None

    def _find_slot(self, key: int) -> int:
        """Returns the slot that holds the key, or else the empty slot where it belongs."""
        keys, mask = self._keys, self._slots - 1
        slot = key & mask
        while keys[slot] not in (0, key):
            slot = (slot + 1) & mask
        return slot

    def _insert(self, key: int, position: int) -> bool:
        slot = self._find_slot(key)
        if self._keys[slot] == key:
            return False
        self._keys[slot] = key
        self._positions[slot] = position
        self._used += 1
        # Linear probing gets slow when the table is more than two thirds full.
        if self._used * 3 > self._slots * 2:
            self._grow()
        return True

    def _grow(self) -> None:
        old_keys, old_positions = self._keys, self._positions
        self._used = 0
        self._allocate(self._slots * 2)
        for key, position in zip(old_keys, old_positions):
            if key:
                self._insert(key, position)


def _hash_id(id_: str) -> int:
    return (hash(id_) & _HASH_MASK) or 1  # 0 is reserved for empty slots


class LineSpans:
    """Offset and length of a file's lines by key (0 to size - 1); length 0 means no line."""

    def __init__(self, size: int) -> None:
        self.starts = array("Q", bytes(8 * size))
        self.lengths = array("I", bytes(4 * size))
        self.count = 0
        self.ordered = True
        """Whether the file holds exactly these lines, in the order of their keys."""
        self._last_key = -1

    def __len__(self) -> int:
        return len(self.lengths)

    def __contains__(self, key: int) -> bool:
        return self.lengths[key] != 0

    def add(self, key: int, start: int, length: int) -> bool:
        """Adds a line; returns False, and keeps the first one, if the key already has a line."""
        if self.lengths[key]:
            self.ordered = False  # the rewrite at the end of the run drops the second line
            return False
        self.starts[key] = start
        self.lengths[key] = length
        self.count += 1
        if key <= self._last_key:
            self.ordered = False
        self._last_key = key
        return True

    def remove(self, key: int) -> None:
        """Removes a line, so that the rewrite at the end of the run drops it."""
        if self.lengths[key]:
            self.lengths[key] = 0
            self.count -= 1
            self.ordered = False


class SampleStore:
    """Random access by position to the lines of a complete file of samples."""

    def __init__(self, path: Path) -> None:
        self.ids = IdIndex()
        self._starts = array("Q")
        self._lengths = array("I")
        # Whole records: a field that cannot be read is named here, with its line, and not later,
        # in the middle of a run.
        for start, length, sample in read_located_records(path, Sample):
            if not self.ids.add(sample.id, len(self._starts)):
                raise RunError(f"{path}: the id {sample.id!r} occurs more than once")
            self._starts.append(start)
            self._lengths.append(length)
        self._decode = msgspec.json.Decoder(Sample).decode
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, position: int) -> Sample:
        """Reads and decodes the sample at a position."""
        return self._decode(os.pread(self._fd, self._lengths[position], self._starts[position]))

    def close(self) -> None:
        """Closes the file; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
