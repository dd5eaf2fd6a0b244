"""Two models on the same prompts: McNemar, intervals, bootstrap, permutation, many categories, non-inferiority.

`a` and `b` are the outcomes of the same rows in the same order: 0/1, or a prompt's mean over its n answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from truing.stats.intervals import Interval, normal_quantile, student_quantile, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class PairedTable(Struct, frozen=True):
    """Paired 0/1 outcomes: both, only the first, only the second, neither."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @classmethod
    def from_outcomes(cls, a: Sequence[bool], b: Sequence[bool]) -> PairedTable:
        """Counts two sequences of equal length."""
        pairs = list(zip(a, b, strict=True))
        count = [sum(1 for x, y in pairs if (bool(x), bool(y)) == want) for want in _CELLS]
        return cls(*count)

    @property
    def n(self) -> int:
        """The number of pairs."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """Rate of b minus rate of a."""
        return (self.only_b - self.only_a) / self.n


_CELLS = ((True, True), (True, False), (False, True), (False, False))


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact p of the discordant pairs (McNemar 1947, Psychometrika 12:153; binomial form)."""
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    log_half = n * math.log(2)
    top = math.lgamma(n + 1) - log_half
    tail = sum(math.exp(top - math.lgamma(i + 1) - math.lgamma(n - i + 1)) for i in range(k + 1))
    return min(1.0, 2 * tail)


def newcombe_paired(table: PairedTable, level: float = 0.95) -> Interval:
    """A difference of paired rates: Wilson with correlation (Newcombe 1998, Stat. Med. 17:2635, method 10)."""
    n = table.n
    if n == 0:
        raise ValueError("no pairs")
    a, b, c, d = table.both, table.only_b, table.only_a, table.neither
    first, second = wilson(a + b, n, level), wilson(a + c, n, level)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    phi = 0.0
    if margins:
        cross = a * d - b * c
        phi = (max(cross - n / 2, 0.0) if cross > 0 else cross) / math.sqrt(margins)
    delta = table.difference
    dl1, du1 = first.estimate - first.lower, first.upper - first.estimate
    dl2, du2 = second.estimate - second.lower, second.upper - second.estimate
    below = math.sqrt(max(0.0, dl1**2 - 2 * phi * dl1 * du2 + du2**2))
    above = math.sqrt(max(0.0, du1**2 - 2 * phi * du1 * dl2 + dl2**2))
    return Interval(delta, max(-1.0, delta - below), min(1.0, delta + above), "newcombe paired")


def paired_mean(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Interval:
    """Interval for the mean difference of prompts' means: Student on clusters (Bell & McCaffrey 2002's simplest case).

    One pseudo-pair each way is added to the variance so that "no difference seen" still has a width (cf. Agresti & Min
    2005, Stat. Med. 24:729).
    """
    differences = [y - x for x, y in zip(a, b, strict=True)]
    n = len(differences)
    if n == 0:
        raise ValueError("no pairs")
    mean = sum(differences) / n
    spread = sum((d - mean) ** 2 for d in differences) + 1.0
    error = math.sqrt(spread / max(1, n - 1) / n) if n > 1 else 1.0
    quantile = student_quantile(level, n - 1) if n > 1 else normal_quantile(level)
    half = quantile * error
    return Interval(mean, max(-1.0, mean - half), min(1.0, mean + half), "paired by prompt")


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
    """Percentile bootstrap of the mean difference over prompts (Efron & Tibshirani 1993, ch. 13)."""
    import numpy as np

    d = _differences(a, b)
    random = np.random.default_rng(seed)
    parts = [
        d[random.integers(0, len(d), (100, len(d)))].mean(1) for _ in range(math.ceil(draws / 100))
    ]
    means = np.concatenate(parts)
    lower, upper = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    mean = float(d.mean())
    return Interval(mean, min(mean, float(lower)), max(mean, float(upper)), "paired bootstrap")


def paired_permutation_test(
    a: ArrayLike, b: ArrayLike, *, draws: int = 9999, seed: int = 0
) -> float:
    """Two-sided p by swapping the members of pairs at random (Fisher 1935, §21); (hits + 1) / (draws + 1)."""
    import numpy as np

    d = _differences(a, b)
    d = d[d != 0]
    if not len(d):
        return 1.0
    random = np.random.default_rng(seed)
    seen = abs(d.sum()) - 1e-12
    hits = 0
    for start in range(0, draws, 500):
        signs = random.integers(0, 2, (min(500, draws - start), len(d))) * 2 - 1
        hits += int((np.abs(signs @ d) >= seen).sum())
    return (hits + 1) / (draws + 1)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values that control the family-wise error (Holm 1979, Scand. J. Stat. 6:65)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    out, worst = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[i]))
        out[i] = worst
    return out


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Adjusted p values that control the false discovery rate (Benjamini & Hochberg 1995, JRSS-B 57:289)."""
    order = sorted(range(len(p)), key=lambda i: p[i], reverse=True)
    out, best = [0.0] * len(p), 1.0
    for rank, i in enumerate(order):
        best = min(best, p[i] * len(p) / (len(p) - rank))
        out[i] = best
    return out


def is_non_inferior(difference: Interval, delta: float, *, higher_is_better: bool) -> bool:
    """Whether the change is shown to cost less than `delta`: the bound on the bad side is inside the margin.

    A two-sided interval of level 1 - 2·alpha gives a test of size alpha (Blackwelder 1982, Control. Clin. Trials
    3:345).
    """
    if delta < 0:
        raise ValueError(f"margin {delta!r} is negative")
    return difference.lower > -delta if higher_is_better else difference.upper < delta


def permutation_test_from_counts(
    differences: Mapping[float, int], *, draws: int = 9999, seed: int = 0
) -> float:
    """`paired_permutation` from counts of equal differences: as quick for a million pairs as for a hundred.

    The sign flips of k pairs with the same |d| sum to |d| (2 Binomial(k, 1/2) - k).
    """
    import numpy as np

    sizes: dict[float, int] = {}
    for d, times in differences.items():
        if abs(d) > 1e-12:
            sizes[round(abs(d), 12)] = sizes.get(round(abs(d), 12), 0) + times
    if not sizes:
        return 1.0
    seen = abs(sum(d * t for d, t in differences.items())) - 1e-9
    random = np.random.default_rng(seed)
    total = np.zeros(draws)
    for size, times in sizes.items():
        total += size * (2 * random.binomial(times, 0.5, draws) - times)
    return (int((np.abs(total) >= seen).sum()) + 1) / (draws + 1)
