"""The order of training rows: passes over each set, similar lengths together, pairs together."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from truing.train.moderation.examples import ModerationExample

# Units are sorted by length within windows of this many: batches need little padding and still mix
# all data sets.
_SORT_WINDOW = 1500

Unit = list[int]  # indexes of examples that go into the same batch: one, or the two of a pair


def sample_epoch_units(
    items: Sequence[ModerationExample], passes: dict[str, float], rng: random.Random
) -> list[Unit]:
    """Returns the shuffled units of an epoch.

    Each set is drawn as often as `passes` (source -> passes) says; of a fractional pass a random
    sample is drawn.
    """
    units_by_source: dict[str, list[Unit]] = defaultdict(list)
    pairs: dict[tuple[str, str], Unit] = defaultdict(list)
    for index, item in enumerate(items):
        if item.pair is not None:
            pairs[item.source, item.pair].append(index)
        else:
            units_by_source[item.source].append([index])
    for (source, _), members in pairs.items():
        units_by_source[source].append(members)

    drawn: list[Unit] = []
    for source in sorted(units_by_source):
        units = units_by_source[source]
        full_passes, sampled = divmod(passes.get(source, 0.0) * len(units), len(units))
        drawn += units * int(full_passes)
        drawn += rng.sample(units, round(sampled))
    rng.shuffle(drawn)
    return drawn


def make_batches(
    items: Sequence[ModerationExample], units: Sequence[Unit], max_tokens: int, rng: random.Random
) -> list[list[int]]:
    """Returns shuffled batches of at most `max_tokens` padded tokens.

    A unit that is larger makes a batch of its own.
    """

    def width_of(unit: Unit) -> int:
        return max(len(items[index].row.ids) for index in unit)

    batches: list[list[int]] = []
    for start in range(0, len(units), _SORT_WINDOW):
        batch: list[int] = []
        batch_width = 0
        for unit in sorted(units[start : start + _SORT_WINDOW], key=width_of):
            width = max(batch_width, width_of(unit))
            if batch and width * (len(batch) + len(unit)) > max_tokens:
                batches.append(batch)
                batch, width = [], width_of(unit)
            batch = [*batch, *unit]
            batch_width = width
        if batch:
            batches.append(batch)
    rng.shuffle(batches)
    return batches
