"""Two models on the same prompts: tests and intervals for paired outcomes, multiple testing.

`a` and `b` are the outcomes of the same rows in the same order: 0 or 1, or the mean of a prompt
over its n answers. Differences are b minus a.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from truing.stats.intervals import Interval, normal_quantile, student_quantile, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class PairedTable(Struct, frozen=True):
    """Counts of paired 0/1 outcomes: 1 in both, only in a, only in b, in neither."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @classmethod
    def from_outcomes(cls, a: Sequence[bool], b: Sequence[bool]) -> PairedTable:
        """Counts two sequences. Raises ValueError if their lengths differ."""
        counts = Counter((bool(x), bool(y)) for x, y in zip(a, b, strict=True))
        return cls(
            both=counts[True, True],
            only_a=counts[True, False],
            only_b=counts[False, True],
            neither=counts[False, False],
        )

    @property
    def n(self) -> int:
        """The number of pairs."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """Rate of b minus rate of a."""
        return (self.only_b - self.only_a) / self.n


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Returns the two-sided exact p value of the discordant pairs.

    McNemar 1947 (Psychometrika 12:153) in the binomial form; 1 if no pair is discordant.
    """
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    # log of n! / 2^n: binomial coefficients overflow a float from about n = 1000.
    log_scale = math.lgamma(n + 1) - n * math.log(2)
    tail = sum(
        math.exp(log_scale - math.lgamma(i + 1) - math.lgamma(n - i + 1)) for i in range(k + 1)
    )
    return min(1.0, 2 * tail)


def newcombe_paired(table: PairedTable, level: float = 0.95) -> Interval:
    """Returns the interval for a difference of paired rates.

    Method 10 of Newcombe 1998 (Stat. Med. 17:2635): Wilson's intervals of both rates, combined
    with the correlation phi. Raises ValueError without pairs.
    """
    n = table.n
    if n == 0:
        raise ValueError("no pairs")
    a, b, c, d = table.both, table.only_b, table.only_a, table.neither  # the paper's letters
    rate_b, rate_a = wilson(a + b, n, level), wilson(a + c, n, level)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    phi = 0.0
    if margins:
        cross = a * d - b * c
        # The paper's continuity correction, for positive correlation only.
        phi = (max(cross - n / 2, 0.0) if cross > 0 else cross) / math.sqrt(margins)
    delta = table.difference
    dl1, du1 = rate_b.estimate - rate_b.lower, rate_b.upper - rate_b.estimate
    dl2, du2 = rate_a.estimate - rate_a.lower, rate_a.upper - rate_a.estimate
    below = math.sqrt(max(0.0, dl1**2 - 2 * phi * dl1 * du2 + du2**2))
    above = math.sqrt(max(0.0, du1**2 - 2 * phi * du1 * dl2 + dl2**2))
    return Interval(delta, max(-1.0, delta - below), min(1.0, delta + above), "newcombe paired")


def paired_mean(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Interval:
    """Returns Student's interval for the mean difference of prompts' means.

    Each prompt is a cluster (the simplest case of Bell & McCaffrey 2002). One pseudo-pair of
    difference +1 or -1 is added to the variance, so that "no difference at all" still has a width
    (cf. Agresti & Min 2005, Stat. Med. 24:729). Raises ValueError without pairs.
    """
    differences = [y - x for x, y in zip(a, b, strict=True)]
    n = len(differences)
    if n == 0:
        raise ValueError("no pairs")
    mean = sum(differences) / n
    squares = sum((d - mean) ** 2 for d in differences) + 1.0
    error = math.sqrt(squares / max(1, n - 1) / n) if n > 1 else 1.0
    quantile = student_quantile(level, n - 1) if n > 1 else normal_quantile(level)
    half_width = quantile * error
    lower, upper = max(-1.0, mean - half_width), min(1.0, mean + half_width)
    return Interval(mean, lower, upper, "paired by prompt")


def _differences(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    import numpy as np

    x, y = np.asarray(a, float), np.asarray(b, float)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise ValueError(f"paired outcomes of shapes {x.shape} and {y.shape}")
    if np.isnan(x).any() or np.isnan(y).any():
        raise ValueError("paired outcomes hold NaN: leave out the pairs that were not scored")
    return np.asarray(y - x)


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, level: float = 0.95, *, draws: int = 2000, seed: int = 0
) -> Interval:
    """Returns the percentile bootstrap of the mean difference (Efron & Tibshirani 1993, ch. 13).

    `draws` is rounded up to hundreds. Raises ValueError for different shapes, NaN or no pairs.
    """
    import numpy as np

    d = _differences(a, b)
    rng = np.random.default_rng(seed)
    batch = 100  # replicates at a time: a whole matrix [draws, n] would not fit for long runs
    replicates = np.concatenate(
        [
            d[rng.integers(0, len(d), (batch, len(d)))].mean(1)
            for _ in range(math.ceil(draws / batch))
        ]
    )
    lower, upper = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    mean = float(d.mean())
    return Interval(mean, min(mean, float(lower)), max(mean, float(upper)), "paired bootstrap")


def paired_permutation_test(
    a: ArrayLike, b: ArrayLike, *, draws: int = 9999, seed: int = 0
) -> float:
    """Returns the two-sided p value of swapping the members of pairs (Fisher 1935, section 21).

    Estimated from random swaps as (hits + 1) / (draws + 1). Raises ValueError as
    `paired_bootstrap`.
    """
    import numpy as np

    d = _differences(a, b)
    d = d[d != 0]
    if not len(d):
        return 1.0
    rng = np.random.default_rng(seed)
    observed = abs(d.sum()) - 1e-12  # equal sums may differ by rounding
    batch, hits = 500, 0
    for start in range(0, draws, batch):
        signs = rng.integers(0, 2, (min(batch, draws - start), len(d))) * 2 - 1
        hits += int((np.abs(signs @ d) >= observed).sum())
    return (hits + 1) / (draws + 1)


def permutation_test_from_counts(
    differences: Mapping[float, int], *, draws: int = 9999, seed: int = 0
) -> float:
    """Returns the p value of `paired_permutation_test` from difference -> number of pairs.

    The random signs of k pairs with the same |d| sum to |d| (2 Binomial(k, 1/2) - k), so the time
    depends on the number of different |d| and not on the number of pairs.
    """
    import numpy as np

    count_by_size: Counter[float] = Counter()
    for d, count in differences.items():
        if abs(d) > 1e-12:
            count_by_size[round(abs(d), 12)] += count
    if not count_by_size:
        return 1.0
    observed = abs(sum(d * count for d, count in differences.items())) - 1e-9
    rng = np.random.default_rng(seed)
    sums = np.zeros(draws)
    for size, count in count_by_size.items():
        sums += size * (2 * rng.binomial(count, 0.5, draws) - count)
    return (int((np.abs(sums) >= observed).sum()) + 1) / (draws + 1)


def holm(p: Sequence[float]) -> list[float]:
    """Returns adjusted p values for the family-wise error (Holm 1979, Scand. J. Stat. 6:65)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, running_max = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        running_max = max(running_max, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = running_max
    return adjusted


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Returns adjusted p values for the false discovery rate.

    Benjamini & Hochberg 1995, JRSS-B 57:289.
    """
    order = sorted(range(len(p)), key=lambda i: p[i], reverse=True)
    adjusted, running_min = [0.0] * len(p), 1.0
    for rank, i in enumerate(order):
        running_min = min(running_min, p[i] * len(p) / (len(p) - rank))
        adjusted[i] = running_min
    return adjusted


def is_non_inferior(difference: Interval, delta: float, *, higher_is_better: bool) -> bool:
    """Returns whether a difference is shown to be worse by less than the margin `delta`.

    That is, whether the bound on the bad side lies inside the margin. With a two-sided interval
    of level 1 - 2 alpha this is a test of size alpha (Blackwelder 1982, Control. Clin. Trials
    3:345). Raises ValueError for a negative margin.
    """
    if delta < 0:
        raise ValueError(f"margin {delta!r} is negative")
    return difference.lower > -delta if higher_is_better else difference.upper < delta
