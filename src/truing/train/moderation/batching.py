"""The order of training rows: passes over each set, rows of similar length together, the two answers of a pair together."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from truing.train.moderation.examples import ModerationExample

_WINDOW = 1500  # units that are sorted by length together: batches stay mixed, padding stays small


def sample_epoch_units(
    items: Sequence[ModerationExample], passes: dict[str, float], rng: random.Random
) -> list[list[int]]:
    """Indexes of rows that go together, each set as often as its passes say; of a part of a pass a random sample."""
    single: dict[str, list[list[int]]] = defaultdict(list)
    pairs: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, item in enumerate(items):
        if item.pair is not None:
            pairs[item.source, item.pair].append(at)
        else:
            single[item.source].append([at])
    for (source, _), members in pairs.items():
        single[source].append(members)
    made: list[list[int]] = []
    for source in sorted(single):
        whole, part = divmod(passes.get(source, 0.0) * len(single[source]), len(single[source]))
        made += single[source] * int(whole)
        made += rng.sample(single[source], round(part))
    rng.shuffle(made)
    return made


def make_batches(
    items: Sequence[ModerationExample], order: Sequence[list[int]], tokens: int, rng: random.Random
) -> list[list[int]]:
    """Batches of at most so many padded tokens (a unit that is larger makes one of its own), shuffled."""
    made: list[list[int]] = []
    for start in range(0, len(order), _WINDOW):
        window = sorted(
            order[start : start + _WINDOW], key=lambda u: max(len(items[i].row.ids) for i in u)
        )
        batch: list[int] = []
        widest = 0
        for unit in window:
            width = max(widest, *(len(items[i].row.ids) for i in unit))
            if batch and width * (len(batch) + len(unit)) > tokens:
                made.append(batch)
                batch, width = [], max(len(items[i].row.ids) for i in unit)
            batch = [*batch, *unit]
            widest = width
        if batch:
            made.append(batch)
    rng.shuffle(made)
    return made
