"""Partial pooling of the rates of categories with few prompts (of changes: see `deltas`).

Six prompts say little about a category by themselves, so its rate is drawn towards the rates of the
other categories by the same judge. It stands beside the counts, marked "pooled", and decides
nothing: see `truing.stats.pooling`.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from truing.analysis.rates import Rate
from truing.stats.pooling import partial_pooling


def pool_small_rates(rates: Sequence[Rate]) -> list[Rate]:
    """Returns rates with `pooled` set in small categories, if there are several categories.

    Categories are pooled with those of the same question, judge and group. The rates of struck
    judges are left as they are.
    """
    families: dict[tuple[str, str, str], list[int]] = {}
    for i, rate in enumerate(rates):
        if rate.category is not None and rate.scored and rate.struck is None:
            families.setdefault((rate.question, rate.judge, rate.group), []).append(i)
    pooled = list(rates)
    for family in families.values():
        if len(family) < 2 or not any(rates[i].small for i in family):
            continue
        # The answers to one prompt are not independent, so a prompt counts once: the events are
        # scaled from answers to prompts.
        sizes = [min(rates[i].scored, rates[i].prompts) for i in family]
        events = [rates[i].events * n / rates[i].scored for i, n in zip(family, sizes)]
        for i, interval in zip(family, partial_pooling(events, sizes)):
            if rates[i].small:
                pooled[i] = replace(rates[i], pooled=interval)
    return pooled
