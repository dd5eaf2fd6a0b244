"""How many prompts, answers and labels: before the money is spent."""

from __future__ import annotations

import math
from statistics import NormalDist

from truing.stats.intervals import wilson


def design_effect(answers: int, correlation: float) -> float:
    """1 + (n - 1)·rho for n answers a prompt that are alike to degree rho (Kish 1965, §5.4)."""
    return 1 + (answers - 1) * correlation


def n_for_width(rate: float, width: float, level: float = 0.95) -> int:
    """Rows for a Wilson interval of at most this width at an expected rate."""
    if not 0 < width < 1 or not 0 <= rate <= 1:
        raise ValueError("width lies between 0 and 1, rate in [0, 1]")
    low, high = 1, 1
    while wilson(round(rate * high), high, level).width > width:
        low, high = high, high * 2
    while low < high:
        mid = (low + high) // 2
        if wilson(rate * mid, mid, level).width > width:
            low = mid + 1
        else:
            high = mid
    return low


def n_for_upper_bound(
    rate: float, limit: float, *, power: float = 0.8, confidence: float = 0.95
) -> int:
    """Rows so that the exact one-sided upper bound falls under `limit` with this power, if the true rate is `rate`."""
    from scipy.special import bdtr, bdtrik

    if not 0 <= rate < limit < 1:
        raise ValueError("the expected rate must lie below the limit")

    def enough(n: int) -> bool:
        most = (
            math.floor(float(bdtrik(1 - confidence, n, limit)))
            if bdtr(0, n, limit) <= 1 - confidence
            else -1
        )
        while most >= 0 and bdtr(most, n, limit) > 1 - confidence:
            most -= 1
        return most >= 0 and float(bdtr(most, n, rate)) >= power

    n = max(1, math.ceil(math.log(1 - confidence) / math.log1p(-limit)))
    while not enough(n):
        n = n + max(1, n // 200)
    return n


def n_pairs_for_mcnemar(
    only_a: float, only_b: float, *, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Prompts for McNemar's test, from the two shares of prompts that change (Connor 1987, Biometrics 43:207)."""
    both, difference = only_a + only_b, abs(only_a - only_b)
    if not 0 < difference <= both <= 1:
        raise ValueError("the shares that change must differ and lie in (0, 1]")
    z, w = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    return math.ceil(
        (z * math.sqrt(both) + w * math.sqrt(both - difference**2)) ** 2 / difference**2
    )


def n_for_non_inferiority(
    changed: float, delta: float, *, power: float = 0.8, alpha: float = 0.025
) -> int:
    """Prompts to show a loss of less than delta if there is none, from the share of prompts that change either way."""
    if not 0 < changed <= 1 or not 0 < delta < 1:
        raise ValueError("changed and delta lie between 0 and 1")
    z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(power)
    return math.ceil(z * z * changed / delta**2)


def detectable_difference(
    n: int, changed: float, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The smallest paired difference that n prompts show with this power, given the share that changes either way."""
    z = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    return min(changed, z * math.sqrt(changed / n))


def n_for_betting_sequence(rate: float, width: float, level: float = 0.95, *, seed: int = 0) -> int:
    """Rows until a betting sequence is this narrow: the median of five simulated runs (2010.09686)."""
    import random

    from truing.stats.sequential import BettingSequence

    draw, found, most = random.Random(seed), [], 20 * n_for_width(rate, width, level)
    for _ in range(5):
        sequence = BettingSequence(level, grid=400)
        while sequence.n < most:
            sequence.add(float(draw.random() < rate))
            if sequence.interval().width <= width:
                break
        found.append(sequence.n)
    return sorted(found)[2]
