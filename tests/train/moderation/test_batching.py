"""Passes over sets, pairs that stay together, and batches within their limit."""

from __future__ import annotations

import random

from tests.train.moderation.builders import make_example

from truing.train.moderation.batching import make_batches, sample_epoch_units


def test_each_set_is_drawn_as_often_as_its_passes_say() -> None:
    items = [make_example(source="a") for _ in range(10)]
    items += [make_example(source="b", pair=str(k // 2)) for k in range(8)]
    units = sample_epoch_units(items, {"a": 2.5, "b": 1.0}, random.Random(0))
    drawn = [index for unit in units for index in unit]
    assert sum(index < 10 for index in drawn) == 25
    assert sorted(index for index in drawn if index >= 10) == list(range(10, 18))
    assert all(len(unit) == 2 for unit in units if unit[0] >= 10)


def test_batches_hold_the_limit_and_every_row() -> None:
    rng = random.Random(0)
    items = [make_example(width=rng.randrange(4, 30)) for _ in range(200)]
    batches = make_batches(items, [[index] for index in range(200)], 64, rng)
    assert sorted(index for batch in batches for index in batch) == list(range(200))
    for batch in batches:
        assert max(len(items[index].row.ids) for index in batch) * len(batch) <= 64


def test_a_unit_above_the_limit_makes_a_batch_of_its_own() -> None:
    items = [make_example(width=40), make_example(width=40), make_example(width=4)]
    batches = make_batches(items, [[0, 1], [2]], 64, random.Random(0))
    assert sorted(batches) == [[0, 1], [2]]
