"""What best-of-n buys and what it costs in divergence: unbiased curves from one sample, and the KL's upper bound."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from msgspec import Struct


def best_of_kl(n: int) -> float:
    """log n - (n - 1)/n: an *upper bound* of KL(best-of-n ‖ base), reached only where all answers differ.

    Widely quoted as its value (Nakano et al. 2021, 2112.09332); Beirami et al. 2024 (2401.01879) show that it is a
    bound.
    """
    if n < 1:
        raise ValueError(f"n = {n}: at least one answer")
    return math.log(n) - (n - 1) / n


def best_of_curve(
    chosen_by: Sequence[Sequence[float]], measured: Sequence[Sequence[float]], ns: Sequence[int]
) -> list[float]:
    """Mean measure of the best of n, for each n of `ns`, from one sample of n_max answers a prompt, without bias.

    `chosen_by[i][k]` is the choosing judge's utility of answer k to prompt i (higher is better), `measured[i][k]`
    what another judge says of it. For each n the mean runs over *all* subsets of n answers (Nakano et al. 2021,
    2112.09332): the answer of rank r (from 0) is the best of C(N-1-r, n-1) of the C(N, n) subsets. Ties share their
    places: the order among equals is averaged out. With `measured` equal to `chosen_by` the curve is the choosing
    judge's own (an over-optimisation curve needs both).
    """
    if len(chosen_by) != len(measured) or not chosen_by:
        raise ValueError("chosen_by and measured: as many prompts on both sides, and at least one")
    totals = [0.0] * len(ns)
    for utilities, values in zip(chosen_by, measured):
        if len(utilities) != len(values) or not utilities:
            raise ValueError("a prompt has another number of utilities than of measures, or none")
        ranked = _ranked(utilities, values)
        for at, n in enumerate(ns):
            if not 1 <= n <= len(ranked):
                raise ValueError(f"n = {n}: between 1 and the {len(ranked)} answers of each prompt")
            whole = math.comb(len(ranked), n)
            totals[at] += sum(
                math.comb(len(ranked) - 1 - r, n - 1) / whole * v for r, v in enumerate(ranked)
            )
    return [t / len(chosen_by) for t in totals]


def _ranked(utilities: Sequence[float], values: Sequence[float]) -> list[float]:
    """Measures from the best utility to the worst; equal utilities all get their mean measure."""
    order = sorted(range(len(utilities)), key=lambda k: -utilities[k])
    ranked: list[float] = []
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and utilities[order[end]] == utilities[order[start]]:
            end += 1
        mean = math.fsum(values[k] for k in order[start:end]) / (end - start)
        ranked += [mean] * (end - start)
        start = end
    return ranked


class RetainedEffect(Struct, frozen=True):
    """The share of an effect that is kept, where the effect is there at all; `share` and bounds are none otherwise."""

    effect: float
    effect_interval: tuple[float, float]
    share: float | None = None
    share_interval: tuple[float, float] | None = None


def retained_effect(
    base: Sequence[float],
    full: Sequence[float],
    kept: Sequence[float],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> RetainedEffect:
    """How much of full - base does `kept` keep, paired by prompt, with percentile bootstrap intervals (95 %).

    Used for context distillation (base, prompted, distilled): the share is only given where the effect's interval
    excludes 0.
    """
    if not len(base) == len(full) == len(kept) or not base:
        raise ValueError("base, full and kept: one number for each prompt, the same prompts")
    rng = random.Random(seed)
    rows = list(zip(base, full, kept))
    effect = _mean(f - b for b, f, _ in rows)
    effects: list[float] = []
    shares: list[float] = []
    for _ in range(draws):
        drawn = rng.choices(rows, k=len(rows))
        whole = _mean(f - b for b, f, _ in drawn)
        effects.append(whole)
        if whole:
            shares.append(_mean(k - b for b, _, k in drawn) / whole)
    bounds = _bounds(effects)
    if bounds[0] <= 0 <= bounds[1] or not shares:
        return RetainedEffect(effect, bounds)
    return RetainedEffect(
        effect, bounds, _mean(k - b for b, _, k in rows) / effect, _bounds(shares)
    )


def _mean(values: Any) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)


def _bounds(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[int(0.025 * (len(ordered) - 1))], ordered[math.ceil(0.975 * (len(ordered) - 1))]
