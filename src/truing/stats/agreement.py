"""Agreement between raters: Cohen, Fleiss, Krippendorff, each with a bootstrap interval over items; Dawid-Skene.

A ratings matrix has one row a rater and one column an item; NaN where a rater did not rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from truing.stats.intervals import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Measurement = Literal["nominal", "ordinal", "interval", "ratio"]
KappaWeights = Literal["none", "linear", "quadratic"]


class BootstrapOptions(msgspec.Struct, frozen=True):
    """How to bootstrap."""

    level: float = 0.95
    draws: int = 500
    seed: int = 0


_USUAL = BootstrapOptions()


def _bootstrap(
    statistic: Callable[[NDArray[np.float64]], float],
    matrix: NDArray[np.float64],
    level: float,
    draws: int,
    seed: int,
) -> tuple[float, float]:
    """Percentile bounds over items drawn with replacement; draws without variance are left out."""
    import numpy as np

    random = np.random.default_rng(seed)
    items = matrix.shape[1]
    got = [statistic(matrix[:, random.integers(0, items, items)]) for _ in range(draws)]
    kept = np.asarray([g for g in got if not np.isnan(g)])
    if not len(kept):
        return float("nan"), float("nan")
    lower, upper = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)


def _interval(
    statistic: Callable[[NDArray[np.float64]], float],
    matrix: NDArray[np.float64],
    name: str,
    options: BootstrapOptions,
) -> Interval:
    value = statistic(matrix)
    lower, upper = _bootstrap(statistic, matrix, options.level, options.draws, options.seed)
    return Interval(value, min(value, lower), max(value, upper), name)


def _kappa(matrix: NDArray[np.float64], power: int) -> float:
    import numpy as np

    both = matrix[:, ~np.isnan(matrix).any(0)]
    values = np.unique(both)
    if both.shape[1] == 0 or len(values) < 2:
        return float("nan")
    at = np.searchsorted(values, both)
    k = len(values)
    table = np.zeros((k, k))
    np.add.at(table, (at[0], at[1]), 1)
    table /= table.sum()
    rank = np.arange(k)
    distance = (np.abs(rank[:, None] - rank) ** power if power else (rank[:, None] != rank)).astype(
        float
    )
    expected = float((distance * np.outer(table.sum(1), table.sum(0))).sum())
    return 1 - float((distance * table).sum()) / expected if expected else float("nan")


def cohen_kappa(
    a: ArrayLike,
    b: ArrayLike,
    *,
    weights: KappaWeights = "none",
    options: BootstrapOptions = _USUAL,
) -> Interval:
    """Agreement of two raters beyond chance (Cohen 1960, Educ. Psych. Meas. 20:37; weighted: 1968)."""
    import numpy as np

    x, y = np.asarray(a, float), np.asarray(b, float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"ratings of shapes {x.shape} and {y.shape}")
    power = {"none": 0, "linear": 1, "quadratic": 2}[weights]
    return _interval(lambda m: _kappa(m, power), np.stack([x, y]), "cohen kappa", options)


def _fleiss(matrix: NDArray[np.float64]) -> float:
    import numpy as np

    values = np.unique(matrix[~np.isnan(matrix)])
    counts = np.stack([(matrix == v).sum(0) for v in values], 1).astype(float)
    counts = counts[counts.sum(1) >= 2]
    if len(values) < 2 or not len(counts):
        return float("nan")
    n = counts.sum(1)
    agree = float(((counts * (counts - 1)).sum(1) / (n * (n - 1))).mean())
    share = counts.sum(0) / counts.sum()
    chance = float((share**2).sum())
    return (agree - chance) / (1 - chance) if chance < 1 else float("nan")


def fleiss_kappa(matrix: ArrayLike, *, options: BootstrapOptions = _USUAL) -> Interval:
    """Agreement of many raters, nominal (Fleiss 1971, Psych. Bull. 76:378); items with a single rating are left out."""
    import numpy as np

    return _interval(_fleiss, np.asarray(matrix, float), "fleiss kappa", options)


def _count_values(
    matrix: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the distinct values of the pairable ratings and how often each item got each.

    Args:
        matrix: ratings, `[raters, items]`, NaN where a rater gave none.

    Returns:
        The values, ascending, `[values]`, and the counts, `[pairable items, values]`. An item is
        pairable if at least two raters rated it; all others say nothing about agreement.
    """
    import numpy as np

    rated = ~np.isnan(matrix)
    pairable = rated.sum(0) >= 2
    ratings, rated = matrix[:, pairable], rated[:, pairable]
    values, value_index = np.unique(ratings[rated], return_inverse=True)
    counts = np.zeros((ratings.shape[1], len(values)))
    item_index = np.nonzero(rated)[1]  # in the row-major order in which ratings[rated] lists them
    np.add.at(counts, (item_index, value_index), 1.0)
    return values, counts


def _coincidences(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the coincidence matrix o, `[values, values]`, of counts, `[items, values]`.

    o[c, k] is the sum over items u of (the ordered pairs of ratings c and k by two different raters
    of u) / (m_u - 1), m_u being the number of ratings of u. Every rating so has weight 1: the rows
    sum to n_c, how often the value c occurs in pairable items, and the whole sums to n.
    """
    import numpy as np

    weights = 1 / (counts.sum(1) - 1)
    pairs = (counts.T * weights) @ counts
    # n_uc ** 2 has every rating paired with itself as well; those n_uc pairs do not count.
    return np.asarray(pairs - np.diag(weights @ counts))


def _squared_differences(
    values: NDArray[np.float64], totals: NDArray[np.float64], measurement: Measurement
) -> NDArray[np.float64]:
    """Returns the squared difference of every two values, `[values, values]`, at a level of measurement.

    `totals` holds n_c, how often each value occurs in pairable items: the distance of two ranks is
    the number of ratings between them.
    """
    import numpy as np

    if measurement == "nominal":
        return 1 - np.eye(len(values))
    if measurement == "ordinal":
        # The sum of n_g for g from c to k, less half of n_c and of n_k, is the difference of the
        # two values' mid-ranks.
        positions = np.cumsum(totals) - totals / 2
    else:
        positions = values
    differences = positions[:, None] - positions
    if measurement == "ratio":
        sums = positions[:, None] + positions
        # c = k = 0 is 0 / 0: no difference.
        differences = np.divide(differences, sums, out=np.zeros_like(sums), where=sums != 0)
    return np.asarray(differences**2)


def _alpha(matrix: NDArray[np.float64], measurement: Measurement) -> float:
    """Returns alpha = 1 - D_o / D_e; NaN unless pairable ratings of two values or more exist."""
    import numpy as np

    values, counts = _count_values(matrix)
    if len(values) < 2:
        return float("nan")  # no disagreement is to be expected, so alpha would be 0 / 0
    coincidences = _coincidences(counts)
    totals = counts.sum(0)
    differences = _squared_differences(values, totals, measurement)
    # D_o = sum(o d) / n and D_e = sum(n_c n_k d) / (n (n - 1)): ratings are drawn without replacement.
    observed = float((coincidences * differences).sum())
    expected = float((np.outer(totals, totals) * differences).sum())
    return 1 - (float(totals.sum()) - 1) * observed / expected


def krippendorff_alpha(
    matrix: ArrayLike, measurement: Measurement = "nominal", *, options: BootstrapOptions = _USUAL
) -> Interval:
    """Returns Krippendorff's alpha: reliability with any number of raters and with missing ratings.

    1 is perfect agreement, 0 what chance gives, below 0 systematic disagreement. Written from
    Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": alpha is one less the
    observed over the expected disagreement, both taken from the coincidence matrix.

    Args:
        matrix: ratings, `[raters, items]`, NaN where a rater gave none. Items with fewer than two
            ratings are left out.
        measurement: how far apart two values are. nominal: equal or not; ordinal: by the ratings
            ranked between them; interval: c - k; ratio: (c - k) / (c + k).
        options: how to bootstrap the interval, over items.

    Returns:
        The estimate and its bounds, all NaN where alpha is undefined: no item has two ratings, or
        all pairable ratings are one value.

    Raises:
        ValueError: `matrix` has not two dimensions, holds infinite values, or has negative values
            at the ratio level, which needs a true zero.
    """
    import numpy as np

    made = np.asarray(matrix, float)
    if made.ndim != 2:
        raise ValueError(f"ratings of shape {made.shape}; expected [raters, items]")
    if np.isinf(made).any():
        raise ValueError("ratings hold infinite values")
    if measurement == "ratio" and (made < 0).any():
        raise ValueError("ratings at the ratio level hold negative values")
    return _interval(
        lambda m: _alpha(m, measurement), made, f"krippendorff alpha, {measurement}", options
    )


def leave_one_out_alpha(
    matrix: ArrayLike,
    raters: Sequence[str],
    measurement: Measurement = "nominal",
    *,
    options: BootstrapOptions = _USUAL,
) -> dict[str, Interval]:
    """Alpha with each rater left out in turn: whose absence raises it disagrees with the others."""
    import numpy as np

    made = np.asarray(matrix, float)
    if len(raters) != len(made):
        raise ValueError(f"{len(raters)} raters for {len(made)} rows")
    keep = {name: np.arange(len(made)) != at for at, name in enumerate(raters)}
    return {
        name: krippendorff_alpha(made[mask], measurement, options=options)
        for name, mask in keep.items()
    }


def alpha_by_category(
    matrix: ArrayLike,
    categories: Sequence[str],
    measurement: Measurement = "nominal",
    *,
    options: BootstrapOptions = _USUAL,
) -> dict[str, Interval]:
    """Alpha over the items of each category."""
    import numpy as np

    made, names = np.asarray(matrix, float), np.asarray(categories)
    if len(names) != made.shape[1]:
        raise ValueError(f"{len(names)} categories for {made.shape[1]} items")
    return {
        str(c): krippendorff_alpha(made[:, names == c], measurement, options=options)
        for c in np.unique(names)
    }


class DawidSkeneResult(msgspec.Struct, frozen=True):
    """Dawid-Skene: each item's probability of true, each rater's sensitivity and specificity, the prevalence."""

    probability: tuple[float, ...]
    sensitivity: tuple[float, ...]
    specificity: tuple[float, ...]
    prevalence: float


def dawid_skene(
    matrix: ArrayLike, *, rounds: int = 200, tolerance: float = 1e-8
) -> DawidSkeneResult:
    """Consensus of binary raters who err differently, by EM (Dawid & Skene 1979, Appl. Stat. 28:20).

    Starts at the majority; one pseudo-item each way keeps rates off 0 and 1. Needs raters better than chance on the
    whole: with the labels' names swapped the likelihood is the same.
    """
    import numpy as np

    made = np.asarray(matrix, float)
    seen = ~np.isnan(made)
    if not seen.any(0).all():
        raise ValueError("an item without any rating")
    yes, no = seen & (made == 1), seen & (made == 0)
    p = np.clip(yes.sum(0) / seen.sum(0), 0.01, 0.99)
    for _ in range(rounds):
        se = (yes @ p + 1) / (seen @ p + 2)
        sp = (no @ (1 - p) + 1) / (seen @ (1 - p) + 2)
        share = float(p.mean())
        up = np.log(share) + np.log(se) @ yes + np.log(1 - se) @ no
        down = np.log(1 - share) + np.log(1 - sp) @ yes + np.log(sp) @ no
        new = np.clip(1 / (1 + np.exp(np.clip(down - up, -700, 700))), 1e-9, 1 - 1e-9)
        moved = float(np.abs(new - p).max())
        p = new
        if moved < tolerance:
            break
    return DawidSkeneResult(
        tuple(map(float, p)), tuple(map(float, se)), tuple(map(float, sp)), share
    )
