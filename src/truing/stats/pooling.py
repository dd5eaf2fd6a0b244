"""Partial pooling: rates and changes of small categories, drawn towards those of the others.

A category of six prompts says little by itself, but its rate is one of fourteen similar ones. The
model of rates is beta-binomial: p_c ~ Beta(mu k, (1 - mu) k), with mu uniform and k of density
k^(-3/2), integrated over a grid of both (Gelman et al., Bayesian Data Analysis, 3rd ed., section
5.3; the idea is that of Efron & Morris 1975, JASA 70:311). A change is the share of prompts that
changed, times how much more often they rose than fell; each part is pooled like a rate. Intervals
cover on average over the categories, not in each one: an unusual category is drawn too far.

Only numpy is needed, so that the summary of a run does not load scipy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct

from truing.stats.intervals import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INTERVAL_METHOD = "partial pooling"
_MEANS, _CONCENTRATIONS = 40, 20  # points of the grid over mu and over k
# k runs from 1 (categories that have little in common) to 500 (alike but for a few points of rate).
_LARGEST_CONCENTRATION = 500.0
_POSTERIOR_SHARE = 0.9999  # of the grid's posterior, that intervals are computed from (for speed)
_LOGIT_END = 14.0  # rates are tabulated from sigmoid(-14), below one in a million, to sigmoid(14)
_QUADRATURE_POINTS = 100  # quantiles of the share that changed, over which a change is averaged


class BetaMixture(Struct, frozen=True):
    """Distribution of one rate: a mixture of betas with parameters `a`, `b` `[K]`.

    The `weights` add up to 1.
    """

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    weights: NDArray[np.float64]

    def updated(self, events: float, size: float) -> BetaMixture:
        """Returns the posterior of a category with these counts, under this mixture."""
        return BetaMixture(self.a + events, self.b + size - events, self.weights)

    @property
    def mean(self) -> float:
        """Mean rate."""
        return float((self.weights * self.a / (self.a + self.b)).sum())

    def distribution(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns rates in rising order, and the probability of a rate below each."""
        import numpy as np

        # On the logit scale densities are smooth even at a < 1. The steps are finer than the
        # standard deviation of the most concentrated beta.
        points = int(2 * _LOGIT_END * math.sqrt(float((self.a + self.b).max()))) + 200
        logits = np.linspace(-_LOGIT_END, _LOGIT_END, points)
        log_beta = _log_beta(self.a, self.b)
        log_density = np.outer(self.a, logits) - np.outer(self.a + self.b, np.logaddexp(0, logits))
        density = self.weights @ np.exp(log_density - log_beta[:, None])
        # What lies below the first point, where the density is that of a power of the rate.
        below = float((self.weights * np.exp(-self.a * _LOGIT_END - log_beta) / self.a).sum())
        step = logits[1] - logits[0]
        inside = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) * step / 2)])
        # The leading error of the trapezoidal rule (Euler-Maclaurin formula).
        slope = np.gradient(density, step)
        inside -= step**2 / 12 * (slope - slope[0])
        probability = np.maximum.accumulate(np.clip(below + inside, 0.0, 1.0))
        return 1 / (1 + np.exp(-logits)), probability

    def interval(self, level: float) -> Interval:
        """Returns mean and equal-tailed interval."""
        import numpy as np

        rates, below = self.distribution()

        def log_odds(p: NDArray[np.float64]) -> NDArray[np.float64]:
            p = np.clip(p, 1e-12, 1 - 1e-12)
            return np.log(p) - np.log1p(-p)

        # Log odds of the probability are nearly straight in those of the rate.
        tails = log_odds(np.array([(1 - level) / 2, (1 + level) / 2]))
        ends = np.interp(tails, log_odds(below), log_odds(rates), left=-np.inf, right=np.inf)
        lower, upper = 1 / (1 + np.exp(-ends))
        mean = self.mean
        return Interval(mean, min(mean, float(lower)), max(mean, float(upper)), INTERVAL_METHOD)


def partial_pooling(
    events: Sequence[float], sizes: Sequence[float], level: float = 0.95
) -> list[Interval]:
    """Returns the rate of each category, small categories drawn towards the common mean.

    The estimates are posterior means, the intervals equal-tailed. Counts need not be whole. Raises
    ValueError for impossible counts.
    """
    return list(_pooled_rates(tuple(events), tuple(sizes), level))


@lru_cache(maxsize=256)
def _pooled_rates(
    events: tuple[float, ...], sizes: tuple[float, ...], level: float
) -> tuple[Interval, ...]:
    common = common_mixture(events, sizes)
    # Many small categories have the same counts.
    distinct = dict.fromkeys(zip(events, sizes, strict=True))
    by_counts = {(k, n): common.updated(k, n).interval(level) for k, n in distinct}
    return tuple(by_counts[counts] for counts in zip(events, sizes))


def partial_pooling_of_changes(
    fell: Sequence[float], rose: Sequence[float], sizes: Sequence[float], level: float = 0.95
) -> list[Interval]:
    """Returns the change of each category, (rose - fell) / size, drawn towards the common change.

    Args:
        fell: prompts of each category whose verdict went from yes to no; sums of the falls of
            rates where prompts have several answers.
        rose: the same of those that went from no to yes.
        sizes: prompts of each category.
        level: probability of the intervals.

    Raises:
        ValueError: the counts are impossible.
    """
    return list(_pooled_changes(tuple(fell), tuple(rose), tuple(sizes), level))


@lru_cache(maxsize=256)
def _pooled_changes(
    fell: tuple[float, ...], rose: tuple[float, ...], sizes: tuple[float, ...], level: float
) -> tuple[Interval, ...]:
    changed = tuple(f + r for f, r in zip(fell, rose, strict=True))
    of_changes, of_directions = common_mixture(changed, sizes), common_mixture(rose, changed)
    distinct = dict.fromkeys(zip(rose, changed, sizes))
    by_counts = {
        (r, c, n): change_interval(of_changes.updated(c, n), of_directions.updated(r, c), level)
        for r, c, n in distinct
    }
    return tuple(by_counts[counts] for counts in zip(rose, changed, sizes))


def change_interval(changed: BetaMixture, rose: BetaMixture, level: float = 0.95) -> Interval:
    """Returns the change s (2 r - 1): s is the share that changed, r that of rises among these.

    The two are taken as independent. The mean is exact; the interval is a numerical integral.
    """
    import numpy as np

    shares, shares_below = changed.distribution()
    rises, rises_below = rose.distribution()
    quantiles = (np.arange(_QUADRATURE_POINTS) + 0.5) / _QUADRATURE_POINTS
    share = np.maximum(np.interp(quantiles, shares_below, shares, left=0.0), 1e-9)
    changes = np.linspace(-1, 1, 401)
    # P(s (2 r - 1) <= x), averaged over s: r lies below (x / s + 1) / 2.
    below = np.interp(
        (changes[:, None] / share + 1) / 2, rises, rises_below, left=0.0, right=1.0
    ).mean(1)
    lower, upper = np.interp([(1 - level) / 2, (1 + level) / 2], below, changes)
    mean = changed.mean * (2 * rose.mean - 1)
    return Interval(mean, min(mean, float(lower)), max(mean, float(upper)), INTERVAL_METHOD)


def common_mixture(events: Sequence[float], sizes: Sequence[float]) -> BetaMixture:
    """Returns the distribution of the rates of all categories: a mixture over the grid.

    Raises ValueError for impossible counts.
    """
    import numpy as np

    for e, m in zip(events, sizes, strict=True):
        if not (m >= 0 and 0 <= e <= m + 1e-9):
            raise ValueError(f"{e!r} events of {m!r} is no rate")
    a, b, log_prior = _grid()
    log_posterior = log_prior.copy()
    log_beta = _log_beta(a, b)
    counts, times = np.unique(np.stack([events, sizes], 1), axis=0, return_counts=True)
    for (k, n), repeats in zip(counts.tolist(), times.tolist()):
        if n:
            log_posterior += repeats * (_log_beta(a + k, b + max(0.0, n - k)) - log_beta)
    weights = np.exp(log_posterior - log_posterior.max())
    weights /= weights.sum()
    order = np.argsort(-weights)
    n_heaviest = int(np.searchsorted(np.cumsum(weights[order]), _POSTERIOR_SHARE)) + 1
    heaviest = order[:n_heaviest]
    return BetaMixture(a[heaviest], b[heaviest], weights[heaviest] / weights[heaviest].sum())


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Returns a = mu k and b = (1 - mu) k of the grid points, and their log prior."""
    import numpy as np

    # Denser towards 0 and 1, where rates of harm lie; the prior makes up for it.
    u = (np.arange(_MEANS) + 0.5) / _MEANS
    mean = (1 - np.cos(np.pi * u)) / 2
    k = np.exp(np.linspace(0.0, math.log(_LARGEST_CONCENTRATION), _CONCENTRATIONS))
    # k^(-3/2) dk is k^(-1/2) d log k.
    log_prior = np.add.outer(np.log(np.sin(np.pi * u)), -0.5 * np.log(k)).ravel()
    return np.outer(mean, k).ravel(), np.outer(1 - mean, k).ravel(), log_prior


def _log_beta(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return _log_gamma(a) + _log_gamma(b) - _log_gamma(a + b)


def _log_gamma(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns log gamma of positive numbers by Stirling's series, to about 1e-11."""
    import numpy as np

    product = np.ones_like(x)
    for i in range(8):  # the series is for arguments from 8 up
        product = product * (x + i)
    y = x + 8
    series = 1 / (12 * y) - 1 / (360 * y**3) + 1 / (1260 * y**5) - 1 / (1680 * y**7)
    return (y - 0.5) * np.log(y) - y + 0.5 * math.log(2 * math.pi) + series - np.log(product)
