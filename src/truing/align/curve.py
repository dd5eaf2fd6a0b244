"""Statistics of alignment: best-of-n curves, their KL divergence, and retained effects."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence

from msgspec import Struct


def best_of_kl(n: int) -> float:
    """Returns log n - (n - 1)/n, in nats: an *upper bound* of KL(best-of-n || base model).

    Often quoted as the exact value (Nakano et al. 2021, arXiv:2112.09332); it is only reached if
    all answers differ (Beirami et al. 2024, arXiv:2401.01879).
    """
    if n < 1:
        raise ValueError(f"n = {n}: at least one answer")
    return math.log(n) - (n - 1) / n


def best_of_curve(
    chosen_by: Sequence[Sequence[float]], measured: Sequence[Sequence[float]], ns: Sequence[int]
) -> list[float]:
    """Returns the expected measure of the best of n answers, for each n in `ns`.

    For prompt i and answer k of N, `chosen_by[i][k]` is the selecting judge's utility (higher is
    better) and `measured[i][k]` another judge's score. For an over-optimisation curve the two
    differ; with the same values in both, the result is the selecting judge's own curve.

    The estimate is the mean over *all* subsets of n answers, so it is unbiased (Nakano et al. 2021,
    arXiv:2112.09332): the answer of rank r, from 0, is the best in C(N-1-r, n-1) of the C(N, n)
    subsets.
    """
    if len(chosen_by) != len(measured) or not chosen_by:
        raise ValueError("chosen_by and measured must have the same, non-zero number of prompts")
    totals = [0.0] * len(ns)
    for utilities, values in zip(chosen_by, measured):
        if len(utilities) != len(values) or not utilities:
            raise ValueError("each prompt needs equally many utilities and measures, at least one")
        ranked = _rank_by_utility(utilities, values)
        for position, n in enumerate(ns):
            totals[position] += _expected_best(ranked, n)
    return [total / len(chosen_by) for total in totals]


def _expected_best(ranked: Sequence[float], n: int) -> float:
    """Returns the mean over all subsets of size n of the value with the best rank."""
    size = len(ranked)
    if not 1 <= n <= size:
        raise ValueError(f"n = {n}: between 1 and the {size} answers of each prompt")
    # The answer of rank r wins where the other n - 1 answers come from the size - 1 - r worse ones.
    subsets = math.comb(size, n)
    return sum(
        math.comb(size - 1 - rank, n - 1) / subsets * value for rank, value in enumerate(ranked)
    )


def _rank_by_utility(utilities: Sequence[float], scores: Sequence[float]) -> list[float]:
    """Returns the values in order of falling utility.

    Ties have no order, so each gets the mean value of all answers with that utility.
    """
    order = sorted(range(len(utilities)), key=lambda k: -utilities[k])
    ranked: list[float] = []
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and utilities[order[end]] == utilities[order[start]]:
            end += 1
        ranked += [_mean(scores[k] for k in order[start:end])] * (end - start)
        start = end
    return ranked


class RetainedEffect(Struct, frozen=True):
    """An effect, and the share of it that a second model retains, each with its interval.

    The share is None if the effect itself is not distinguishable from 0.
    """

    effect: float
    effect_interval: tuple[float, float]
    share: float | None = None
    share_interval: tuple[float, float] | None = None


def retained_effect(
    base: Sequence[float],
    full: Sequence[float],
    retained: Sequence[float],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> RetainedEffect:
    """Returns which share of the effect full - base the scores `retained` keep.

    The three sequences hold one score for each prompt, of the same prompts: for context
    distillation the base model, the prompted model, and the distilled model. Intervals are 95 %
    percentile bootstrap intervals over prompts.
    """
    if not len(base) == len(full) == len(retained) or not base:
        raise ValueError("base, full and retained: one number for each prompt, the same prompts")
    rng = random.Random(seed)
    rows = list(zip(base, full, retained))
    effects: list[float] = []
    shares: list[float] = []
    for _ in range(draws):
        # Whole rows: the three scores of a prompt are correlated.
        resample = rng.choices(rows, k=len(rows))
        effect, retained_part = _effects(resample)
        effects.append(effect)
        if effect:  # a resample without any effect has no share
            shares.append(retained_part / effect)
    effect, retained_part = _effects(rows)
    effect_interval = _percentile_interval(effects)
    # A ratio with a denominator near 0 says nothing.
    if effect_interval[0] <= 0 <= effect_interval[1] or not shares:
        return RetainedEffect(effect, effect_interval)
    return RetainedEffect(
        effect, effect_interval, retained_part / effect, _percentile_interval(shares)
    )


def _effects(rows: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Returns the mean of full - base, and of retained - base."""
    return (
        _mean(full - base for base, full, _ in rows),
        _mean(retained - base for base, _, retained in rows),
    )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)


def _percentile_interval(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[int(0.025 * last)], ordered[math.ceil(0.975 * last)]
