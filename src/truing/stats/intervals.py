"""Intervals for rates: Wilson, Clopper-Pearson, clustered, macro-averaged, partially pooled; bounds for the unscored.

Every function gives an `Interval` whose estimate and bounds come from one method. Nothing here imports numpy or scipy
before a function that needs them is called, so that the engine can print Wilson intervals at no cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

from msgspec import Struct


class Interval(Struct, frozen=True):
    """An estimate with its bounds, and the name of the method that made all three."""

    estimate: float
    lower: float
    upper: float
    method: str = ""

    @property
    def width(self) -> float:
        """Upper minus lower."""
        return self.upper - self.lower


@lru_cache(maxsize=64)
def normal_quantile(level: float = 0.95) -> float:
    """The two-sided standard normal quantile: 1.96 at 95 %."""
    if not 0 < level < 1:
        raise ValueError(f"level {level!r} is not between 0 and 1")
    return NormalDist().inv_cdf(0.5 + level / 2)


def _counted(events: float, n: float) -> None:
    if not (n > 0 and 0 <= events <= n) or math.isnan(events):
        raise ValueError(f"{events!r} events of {n!r} is no rate")


def _wilson(p: float, n: float, z: float) -> tuple[float, float]:
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    lower = 0.0 if p == 0 else max(0.0, min(p, centre - half))
    upper = 1.0 if p == 1 else min(1.0, max(p, centre + half))
    return lower, upper


def wilson(events: float, n: float, level: float = 0.95) -> Interval:
    """Score interval for independent rows (Wilson 1927, JASA 22:209)."""
    _counted(events, n)
    p = events / n
    return Interval(p, *_wilson(p, n, normal_quantile(level)), "wilson")


def clopper_pearson(events: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval by inverting two binomial tests (Clopper & Pearson 1934, Biometrika 26:404)."""
    from scipy.special import betaincinv

    _counted(events, n)
    tail = (1 - level) / 2
    lower = 0.0 if events == 0 else float(betaincinv(events, n - events + 1, tail))
    upper = 1.0 if events == n else float(betaincinv(events + 1, n - events, 1 - tail))
    return Interval(events / n, lower, upper, "clopper-pearson")


def exact_upper_bound(events: int, n: int, level: float = 0.95) -> float:
    """One-sided exact upper bound: 0 of 59 gives 0.0495 at 95 % (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    _counted(events, n)
    return 1.0 if events == n else float(betaincinv(events + 1, n - events, level))


def student_quantile(level: float, freedom: float) -> float:
    """Two-sided Student quantile by Hill's expansion (CACM 1970, algorithm 396); error below 1e-4 for 8 or more."""
    z = normal_quantile(level)
    if freedom < 8:
        from scipy.special import stdtrit

        return float(stdtrit(max(freedom, 1.0), 0.5 + level / 2))
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + g1 / freedom + g2 / freedom**2 + g3 / freedom**3 + g4 / freedom**4


def clustered_wilson(
    events: Sequence[float],
    sizes: Sequence[float],
    level: float = 0.95,
    *,
    times: Sequence[int] | None = None,
) -> Interval:
    """Rate over clusters (n answers of one prompt): Wilson at the effective sample size, Student quantile.

    The design effect is the cluster-robust variance of the ratio over the binomial one (Korn & Graubard 1998, Survey
    Methodology 24:193; Wilson form: Franco et al. 2019, J. Survey Stat. Meth. 7:334), never below 1. Without variance
    between clusters the number of clusters is the sample size: the cautious reading of "all answers alike".
    `times` says how often each (events, size) stands.
    """
    repeats = times if times is not None else [1] * len(sizes)
    rows = [(e, m, t) for e, m, t in zip(events, sizes, repeats, strict=True) if m > 0 and t > 0]
    total = float(sum(m * t for _, m, t in rows))
    happened = float(sum(e * t for e, _, t in rows))
    _counted(happened, total)
    p, clusters = happened / total, sum(t for _, _, t in rows)
    if total == clusters:  # one row a cluster: plain Wilson
        return wilson(happened, total, level)
    if clusters == 1 or p in (0.0, 1.0):
        effective = float(clusters)
    else:
        spread = (
            sum(t * (e - p * m) ** 2 for e, m, t in rows) * clusters / (clusters - 1) / total**2
        )
        effective = total / max(1.0, spread / (p * (1 - p) / total))
    quantile = student_quantile(level, clusters - 1) if clusters > 1 else normal_quantile(level)
    return Interval(p, *_wilson(p, effective, quantile), "cluster-robust wilson")


def cluster_bootstrap(
    events: Sequence[float],
    sizes: Sequence[float],
    level: float = 0.95,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over whole clusters (Davison & Hinkley 1997, ch. 3.8); the estimate is always inside."""
    import numpy as np

    e, m = np.asarray(events, float), np.asarray(sizes, float)
    e, m = e[m > 0], m[m > 0]
    _counted(float(e.sum()), float(m.sum()))
    p = float(e.sum() / m.sum())
    at = np.random.default_rng(seed).integers(0, len(e), (draws, len(e)))
    rates = e[at].sum(1) / m[at].sum(1)
    lower, upper = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(p, min(p, float(lower)), max(p, float(upper)), "cluster bootstrap")


@lru_cache(maxsize=4096)
def _effective(part: Interval, z: float) -> float:
    """The number of rows for which Wilson's interval of this rate is as wide as the given one."""
    low, high = 1e-3, 1e12
    for _ in range(100):
        mid = math.sqrt(low * high)
        lower, upper = _wilson(part.estimate, mid, z)
        low, high = (mid, high) if upper - lower > part.width else (low, mid)
    return high


def macro_average(parts: Sequence[Interval], level: float = 0.95) -> Interval:
    """Plain mean of rates of separate groups: Wilson at the effective sample size of a stratified mean.

    Each group's rows are read off its interval's width (as Franco et al. 2019 do for complex samples); the variance of
    the mean is the sum of p(1-p)/(n-1) over k^2. Squaring and adding the groups' own distances (Zou & Donner 2008)
    covers 91 % only with 14 groups of 10 rows, see benchmarks/statistics.
    """
    if not parts:
        raise ValueError("no categories to average")
    if len(parts) == 1:
        return parts[0]
    z, k = normal_quantile(level), len(parts)
    mean = sum(i.estimate for i in parts) / k
    rows = [_effective(i, z) for i in parts]
    variance = (
        sum(i.estimate * (1 - i.estimate) / max(0.5, n - 1) for i, n in zip(parts, rows)) / k**2
    )
    effective = mean * (1 - mean) / variance if variance > 0 else k**2 / sum(1 / n for n in rows)
    return Interval(mean, *_wilson(mean, effective, z), "stratified wilson")


def unscored_bounds(events: int, n: int, unscored: int) -> tuple[float, float]:
    """Best and worst case of a rate: all unscored rows counted as no event, then as events (Manski 1990)."""
    if n <= 0 or unscored < 0 or events < 0 or events + unscored > n:
        raise ValueError(f"{events} events and {unscored} unscored of {n} are impossible")
    return events / n, (events + unscored) / n


def partial_pooling(
    events: Sequence[int], sizes: Sequence[int], level: float = 0.95
) -> list[Interval]:
    """Small categories borrow strength: beta-binomial model, hyperparameters integrated on a grid.

    Efron & Morris 1975 (JASA 70:311) for the idea, Gelman et al., Bayesian Data Analysis 3rd ed. §5.3 for the model:
    p_c ~ Beta(mu·k, (1-mu)·k) with mu uniform and k of density k^(-3/2). Posterior means, equal-tailed intervals.
    """
    import numpy as np
    from scipy.special import betainc, betaln

    k, n = np.asarray(events, float), np.asarray(sizes, float)
    for e, m in zip(k, n, strict=True):
        if not (m >= 0 and 0 <= e <= m):
            raise ValueError(f"{e!r} events of {m!r} is no rate")
    mu = (np.arange(60) + 0.5) / 60
    kappa = np.exp(np.linspace(math.log(1.0), math.log(2000.0), 40))
    a, b = np.outer(mu, kappa).ravel(), np.outer(1 - mu, kappa).ravel()
    prior = -0.5 * np.log(np.tile(kappa, len(mu)))  # k^(-3/2) dk on a log grid
    each = betaln(a + k[:, None], b + (n - k)[:, None]) - betaln(a, b)
    log_w = prior + each.sum(0)
    keep = log_w > log_w.max() - 12
    w = np.exp(log_w[keep] - log_w.max())
    w /= w.sum()
    a, b = a[keep], b[keep]
    out = []
    for e, m in zip(k, n, strict=True):
        pa, pb = a + e, b + m - e
        mean = float((w * pa / (pa + pb)).sum())
        bounds = []
        for tail in ((1 - level) / 2, (1 + level) / 2):
            lo, hi = 0.0, 1.0
            for _ in range(40):
                mid = (lo + hi) / 2
                below = float((w * betainc(pa, pb, mid)).sum()) < tail
                lo, hi = (mid, hi) if below else (lo, mid)
            bounds.append((lo + hi) / 2)
        out.append(Interval(mean, min(mean, bounds[0]), max(mean, bounds[1]), "partial pooling"))
    return out
