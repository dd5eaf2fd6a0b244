"""Sample sizes: how many prompts, answers and labels a question needs."""

from __future__ import annotations

import math
import random
from statistics import NormalDist

from truing.stats.intervals import wilson
from truing.stats.sequential import BettingSequence


def design_effect(answers: int, correlation: float) -> float:
    """Returns 1 + (n - 1) rho for n answers per prompt of intraclass correlation rho.

    Kish 1965, section 5.4.
    """
    return 1 + (answers - 1) * correlation


def n_for_width(rate: float, width: float, level: float = 0.95) -> int:
    """Returns the rows for a Wilson interval of at most this width at an expected rate.

    Raises ValueError for a rate or a width outside [0, 1].
    """
    if not 0 < width < 1 or not 0 <= rate <= 1:
        raise ValueError("width lies between 0 and 1, rate in [0, 1]")
    low, high = 1, 1
    while wilson(round(rate * high), high, level).width > width:
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        if wilson(rate * middle, middle, level).width > width:
            low = middle + 1
        else:
            high = middle
    return low


def n_for_upper_bound(
    rate: float, limit: float, *, power: float = 0.8, confidence: float = 0.95
) -> int:
    """Returns the rows for the exact one-sided upper bound to fall below `limit` with this power.

    `rate` is the true rate; ValueError unless it lies below the limit. For large sizes the result
    may be up to 0.5 % too large.
    """
    from scipy.special import bdtr, bdtrik

    if not 0 <= rate < limit < 1:
        raise ValueError("the expected rate must lie below the limit")
    alpha = 1 - confidence

    def most_events(n: int) -> int:
        """Returns the most events of n at which the bound is below the limit, -1 if none is."""
        if bdtr(0, n, limit) > alpha:
            return -1
        k = math.floor(float(bdtrik(alpha, n, limit)))
        while k >= 0 and bdtr(k, n, limit) > alpha:  # bdtrik may be one too large by rounding
            k -= 1
        return k

    def has_power(n: int) -> bool:
        k = most_events(n)
        return k >= 0 and float(bdtr(k, n, rate)) >= power

    n = max(1, math.ceil(math.log(alpha) / math.log1p(-limit)))
    while not has_power(n):
        n += max(1, n // 200)
    return n


def n_pairs_for_mcnemar(
    only_a: float, only_b: float, *, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Returns the prompts for McNemar's test (Connor 1987, Biometrics 43:207).

    `only_a` and `only_b` are the shares of prompts that change in either direction; ValueError if
    they are equal or do not lie in (0, 1].
    """
    discordant, difference = only_a + only_b, abs(only_a - only_b)
    if not 0 < difference <= discordant <= 1:
        raise ValueError("the shares that change must differ and lie in (0, 1]")
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    deviations = z_alpha * math.sqrt(discordant) + z_power * math.sqrt(discordant - difference**2)
    return math.ceil(deviations**2 / difference**2)


def n_for_non_inferiority(
    changed: float, delta: float, *, power: float = 0.8, alpha: float = 0.025
) -> int:
    """Returns the prompts that show a loss of less than delta, if there is no loss.

    `changed` is the share of prompts that change in either direction. Raises ValueError for a
    share or a margin outside (0, 1).
    """
    if not 0 < changed <= 1 or not 0 < delta < 1:
        raise ValueError("changed and delta lie between 0 and 1")
    z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(power)
    return math.ceil(z * z * changed / delta**2)


def detectable_difference(
    n: int, changed: float, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Returns the smallest paired difference that n prompts detect with this power.

    `changed` is the share of prompts that change in either direction.
    """
    z = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    return min(changed, z * math.sqrt(changed / n))


def n_for_betting_sequence(rate: float, width: float, level: float = 0.95, *, seed: int = 0) -> int:
    """Returns the rows until a betting sequence (arXiv 2010.09686) is this narrow.

    The median of five simulated runs, each of at most 20 times the rows of a Wilson interval.
    """
    rng = random.Random(seed)
    most_rows = 20 * n_for_width(rate, width, level)
    sizes = []
    for _ in range(5):
        sequence = BettingSequence(level, grid=400)
        while sequence.n < most_rows:
            sequence.add(float(rng.random() < rate))
            if sequence.interval().width <= width:
                break
        sizes.append(sequence.n)
    return sorted(sizes)[2]
