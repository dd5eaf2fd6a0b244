"""Ids of rows: a hash of the content, and whether the users' own ids occur twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from truing.bulk.row_files import InputRow

_HASH_BYTES = 8
_RANGES = 256
_ENCODER = msgspec.json.Encoder(order="deterministic")


class DuplicateIds(Struct, frozen=True, kw_only=True):
    """How many rows have an id (the field `id`) that an earlier row has, and in which shards.

    Ids are compared by 64-bit hashes: of n distinct ids, n^2 / 2^65 pairs are taken for equal, one
    in 3,700 runs of 10^8 rows. `shards` names the first few shards that hold such rows.
    """

    rows: int = 0
    shards: tuple[int, ...] = ()


def hash_row(fields: dict[str, Any]) -> bytes:
    """Returns the 16 bytes of a row's content id; the order of its fields does not count."""
    return hashlib.blake2b(_ENCODER.encode(fields), digest_size=16).digest()


def hash_row_id(row: InputRow) -> int | None:
    """Returns a 64-bit hash of a row's field `id`, or None without one."""
    id_ = row.fields.get("id")
    if id_ is None or id_ == "":
        return None
    digest = hashlib.blake2b(_ENCODER.encode(id_), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "big")


def pack_hashes(hashes: Iterable[int | None]) -> bytes:
    """Returns hashes, without the missing ones, sorted, 8 bytes each."""
    return np.sort(np.array([h for h in hashes if h is not None], np.uint64)).tobytes()


def find_duplicate_ids(packed: Iterable[bytes], max_shards: int = 10) -> DuplicateIds:
    """Returns the duplicates among the hashes of all shards, `packed` by shard.

    Memory: 8 bytes a row, and as much again for a 256th of the rows at a time.
    """
    by_shard = [np.frombuffer(data, np.uint64) for data in packed]
    edges = np.array([i * (2**64 // _RANGES) for i in range(1, _RANGES)], np.uint64)
    # The hashes of a shard are sorted, so that a range of them is a slice.
    places = [np.concatenate(([0], np.searchsorted(h, edges), [len(h)])) for h in by_shard]
    rows = 0
    shards: set[int] = set()
    for index in range(_RANGES):
        slices = [h[p[index] : p[index + 1]] for h, p in zip(by_shard, places)]
        values = np.concatenate(slices) if slices else np.zeros(0, np.uint64)
        if len(values) == len(unique := np.unique(values)):
            continue
        rows += len(values) - len(unique)
        if len(shards) < max_shards:
            shards |= _find_shards(slices, values)
    return DuplicateIds(rows=rows, shards=tuple(sorted(shards)[:max_shards]))


def _find_shards(slices: list[NDArray[np.uint64]], values: NDArray[np.uint64]) -> set[int]:
    unique, counts = np.unique(values, return_counts=True)
    doubled = unique[counts > 1]
    return {number for number, part in enumerate(slices) if np.isin(part, doubled).any()}
