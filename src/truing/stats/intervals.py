"""Intervals for rates: independent rows, clusters, averages over groups, and unscored rows.

Every function returns an `Interval` whose estimate and bounds come from one method. numpy and
scipy are imported only inside the functions that need them, so that a run can print Wilson
intervals without loading them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

from msgspec import Struct


class Interval(Struct, frozen=True):
    """An estimate with its bounds, and the name of the method that gave all three."""

    estimate: float
    lower: float
    upper: float
    method: str = ""

    @property
    def width(self) -> float:
        """Upper minus lower bound."""
        return self.upper - self.lower


@lru_cache(maxsize=64)
def normal_quantile(level: float = 0.95) -> float:
    """Returns the two-sided standard normal quantile: 1.96 at 95 %."""
    if not 0 < level < 1:
        raise ValueError(f"level {level!r} is not between 0 and 1")
    return NormalDist().inv_cdf(0.5 + level / 2)


def student_quantile(level: float, freedom: float) -> float:
    """Returns the two-sided Student quantile for `freedom` degrees of freedom.

    By Hill's expansion (CACM 1970, algorithm 396), with an error below 1e-4 from 8 degrees of
    freedom up; below that from scipy.
    """
    z = normal_quantile(level)
    if freedom < 8:
        from scipy.special import stdtrit

        return float(stdtrit(max(freedom, 1.0), 0.5 + level / 2))
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + g1 / freedom + g2 / freedom**2 + g3 / freedom**3 + g4 / freedom**4


def _check_counts(events: float, n: float) -> None:
    if not (n > 0 and 0 <= events <= n) or math.isnan(events):
        raise ValueError(f"{events!r} events of {n!r} is no rate")


def _wilson_bounds(p: float, n: float, z: float) -> tuple[float, float]:
    """Returns the score bounds of a rate p of n rows, which need not be a whole number."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half_width = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # min and max guard against rounding: the bounds always hold the estimate.
    lower = 0.0 if p == 0 else max(0.0, min(p, centre - half_width))
    upper = 1.0 if p == 1 else min(1.0, max(p, centre + half_width))
    return lower, upper


def wilson(events: float, n: float, level: float = 0.95) -> Interval:
    """Returns the score interval for independent rows (Wilson 1927, JASA 22:209)."""
    _check_counts(events, n)
    p = events / n
    return Interval(p, *_wilson_bounds(p, n, normal_quantile(level)), "wilson")


def clopper_pearson(events: float, n: float, level: float = 0.95) -> Interval:
    """Returns the exact interval (Clopper & Pearson 1934, Biometrika 26:404).

    Counts need not be whole: at an effective number of rows it is the interval of Korn & Graubard
    1998 for clusters.
    """
    from scipy.special import betaincinv

    _check_counts(events, n)
    tail = (1 - level) / 2
    lower = 0.0 if events == 0 else float(betaincinv(events, n - events + 1, tail))
    upper = 1.0 if events == n else float(betaincinv(events + 1, n - events, 1 - tail))
    return Interval(events / n, lower, upper, "clopper-pearson")


def exact_upper_bound(events: int, n: int, level: float = 0.95) -> float:
    """Returns the one-sided exact upper bound: 0.0495 for 0 of 59 at 95 %."""
    from scipy.special import betaincinv

    _check_counts(events, n)
    return 1.0 if events == n else float(betaincinv(events + 1, n - events, level))


def wilson_at(rate: float, size: float, level: float = 0.95, method: str = "wilson") -> Interval:
    """Returns Wilson's interval of a rate at an effective sample size, which need not be whole.

    Raises ValueError unless the rate lies in [0, 1] and the size is positive.
    """
    if not 0 <= rate <= 1 or not size > 0:
        raise ValueError(f"no interval of a rate of {rate!r} at a size of {size!r}")
    return Interval(rate, *_wilson_bounds(rate, size, normal_quantile(level)), method)


def clustered_wilson(
    events: Sequence[float],
    sizes: Sequence[float],
    level: float = 0.95,
    *,
    times: Sequence[int] | None = None,
) -> Interval:
    """Returns the interval of a rate over clusters, such as the n answers to each prompt.

    Wilson's form at the effective sample size, with a Student quantile. The design effect is the
    cluster-robust variance of the ratio over the binomial variance (Korn & Graubard 1998, Survey
    Methodology 24:193; Wilson form: Franco et al. 2019, J. Survey Stat. Meth. 7:334), but at
    least 1. If there is one cluster, or no variance at all, the effective size is the number of
    clusters: the cautious reading, in which all answers to a prompt would have been alike.

    Args:
        events: number of events in each cluster.
        sizes: number of rows in each cluster; empty clusters are left out.
        level: confidence level.
        times: how many clusters there are of each (events, size); 1 each by default.

    Raises:
        ValueError: the counts are impossible, or there are no rows.
    """
    repeats = times if times is not None else [1] * len(sizes)
    rows = [(e, m, t) for e, m, t in zip(events, sizes, repeats, strict=True) if m > 0 and t > 0]
    n = float(sum(m * t for _, m, t in rows))
    n_events = float(sum(e * t for e, _, t in rows))
    _check_counts(n_events, n)
    p, n_clusters = n_events / n, sum(t for _, _, t in rows)
    if n == n_clusters:
        return wilson(n_events, n, level)
    if n_clusters == 1 or p in (0.0, 1.0):
        effective = float(n_clusters)
    else:
        # Linearised (Taylor) variance of the ratio of two cluster totals.
        squares = sum(t * (e - p * m) ** 2 for e, m, t in rows)
        variance = squares * n_clusters / (n_clusters - 1) / n**2
        design_effect = variance / (p * (1 - p) / n)
        effective = n / max(1.0, design_effect)
    if n_clusters > 1:
        quantile = student_quantile(level, n_clusters - 1)
    else:
        quantile = normal_quantile(level)
    return Interval(p, *_wilson_bounds(p, effective, quantile), "cluster-robust wilson")


def cluster_bootstrap(
    events: Sequence[float],
    sizes: Sequence[float],
    level: float = 0.95,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Returns the percentile bootstrap over whole clusters (Davison & Hinkley 1997, ch. 3.8).

    The bounds are widened where necessary to hold the estimate.
    """
    import numpy as np

    e, m = np.asarray(events, float), np.asarray(sizes, float)
    e, m = e[m > 0], m[m > 0]
    _check_counts(float(e.sum()), float(m.sum()))
    p = float(e.sum() / m.sum())
    drawn = np.random.default_rng(seed).integers(0, len(e), (draws, len(e)))
    rates = e[drawn].sum(1) / m[drawn].sum(1)
    lower, upper = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(p, min(p, float(lower)), max(p, float(upper)), "cluster bootstrap")


@lru_cache(maxsize=4096)
def effective_rows(group: Interval, z: float) -> float:
    """Returns the number of independent rows at which Wilson's interval of a rate is as wide.

    `z` is the normal quantile of the interval's level.
    """
    low, high = 1e-3, 1e12
    for _ in range(100):
        middle = math.sqrt(low * high)  # bisection on a log scale: the range is 15 decades
        lower, upper = _wilson_bounds(group.estimate, middle, z)
        low, high = (middle, high) if upper - lower > group.width else (low, middle)
    return high


def macro_average(groups: Sequence[Interval], level: float = 0.95) -> Interval:
    """Returns the plain mean of the rates of separate groups.

    Wilson's form at the effective sample size of a stratified mean: the rows of each group are
    inferred from the width of its interval (as Franco et al. 2019 do for complex samples), and the
    variance of the mean is the sum of p (1 - p) / (n - 1) over k^2. Squaring and adding the
    groups' own distances to their bounds (Zou & Donner 2008) covers only 91 % with 14 groups of
    10 rows; see benchmarks/statistics. Raises ValueError without groups.
    """
    if not groups:
        raise ValueError("no categories to average")
    if len(groups) == 1:
        return groups[0]
    z, k = normal_quantile(level), len(groups)
    mean = sum(g.estimate for g in groups) / k
    rows = [effective_rows(g, z) for g in groups]
    variance = (
        sum(g.estimate * (1 - g.estimate) / max(0.5, n - 1) for g, n in zip(groups, rows)) / k**2
    )
    if variance > 0:
        effective = mean * (1 - mean) / variance
    else:  # all rates are 0 or 1: the harmonic mean of the sizes, times k
        effective = k**2 / sum(1 / n for n in rows)
    return Interval(mean, *_wilson_bounds(mean, effective, z), "stratified wilson")


def unscored_bounds(events: int, n: int, unscored: int) -> tuple[float, float]:
    """Returns a rate with all unscored rows counted as non-events, and as events (Manski 1990).

    Raises ValueError for impossible counts.
    """
    if n <= 0 or unscored < 0 or events < 0 or events + unscored > n:
        raise ValueError(f"{events} events and {unscored} unscored of {n} are impossible")
    return events / n, (events + unscored) / n
