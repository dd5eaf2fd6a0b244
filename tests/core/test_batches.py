"""Splitting into batches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from truing.core.batches import split_batches


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (7, [3, 3, 1])]
)
def test_batches_are_full_but_for_the_last(count: int, sizes: list[int]) -> None:
    batches = list(split_batches(range(count), 3))
    assert [len(batch) for batch in batches] == sizes
    assert [item for batch in batches for item in batch] == list(range(count))


def test_no_item_of_a_later_batch_is_read_before_its_turn() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(6):
            read.append(number)
            yield number

    batches = split_batches(items(), 2)
    assert next(batches) == [0, 1] and read == [0, 1]
    assert next(batches) == [2, 3] and read == [0, 1, 2, 3]
