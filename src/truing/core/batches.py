"""Splits what is read one by one into batches. (`itertools.batched` needs Python 3.12.)"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def split_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` items in order; the last one may be shorter.

    Reads the items of a batch when the batch is asked for, and no further.
    """
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
