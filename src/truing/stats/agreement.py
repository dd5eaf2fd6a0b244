"""Agreement between raters: Cohen, Fleiss, Krippendorff; a consensus of raters by Dawid-Skene.

A ratings matrix has one row per rater and one column per item, with NaN where a rater did not
rate. All coefficients come with a percentile bootstrap interval over items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from truing.stats.intervals import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Coefficient = Callable[[NDArray[np.float64]], float]

Measurement = Literal["nominal", "ordinal", "interval", "ratio"]
KappaWeights = Literal["none", "linear", "quadratic"]


class BootstrapOptions(msgspec.Struct, frozen=True):
    """Confidence level, number of bootstrap replicates and seed."""

    level: float = 0.95
    draws: int = 500
    seed: int = 0


_DEFAULT_BOOTSTRAP = BootstrapOptions()


def _bootstrap_interval(
    coefficient: Coefficient,
    ratings: NDArray[np.float64],
    method: str,
    options: BootstrapOptions,
) -> Interval:
    """Returns a coefficient with its percentile interval over items drawn with replacement.

    Replicates in which the coefficient is undefined (all ratings alike) are left out.
    """
    import numpy as np

    estimate = coefficient(ratings)
    rng = np.random.default_rng(options.seed)
    n_items = ratings.shape[1]
    replicates = np.asarray(
        [coefficient(ratings[:, rng.integers(0, n_items, n_items)]) for _ in range(options.draws)]
    )
    defined = replicates[~np.isnan(replicates)]
    if len(defined):
        tails = [(1 - options.level) / 2, (1 + options.level) / 2]
        lower, upper = map(float, np.quantile(defined, tails))
    else:
        lower = upper = float("nan")
    return Interval(estimate, min(estimate, lower), max(estimate, upper), method)


def _weighted_kappa(ratings: NDArray[np.float64], power: int) -> float:
    """Returns Cohen's kappa of two raters with disagreement |i - j|^power (0: i != j)."""
    import numpy as np

    both_rated = ratings[:, ~np.isnan(ratings).any(0)]
    values = np.unique(both_rated)
    if both_rated.shape[1] == 0 or len(values) < 2:
        return float("nan")
    value_index = np.searchsorted(values, both_rated)
    k = len(values)
    confusion = np.zeros((k, k))
    np.add.at(confusion, (value_index[0], value_index[1]), 1)
    confusion /= confusion.sum()
    rank = np.arange(k)
    if power:
        disagreement = (np.abs(rank[:, None] - rank) ** power).astype(float)
    else:
        disagreement = (rank[:, None] != rank).astype(float)
    by_chance = np.outer(confusion.sum(1), confusion.sum(0))
    expected = float((disagreement * by_chance).sum())
    observed = float((disagreement * confusion).sum())
    return 1 - observed / expected if expected else float("nan")


def cohen_kappa(
    a: ArrayLike,
    b: ArrayLike,
    *,
    weights: KappaWeights = "none",
    options: BootstrapOptions = _DEFAULT_BOOTSTRAP,
) -> Interval:
    """Returns the agreement of two raters beyond chance (Cohen 1960, Educ. Psych. Meas. 20:37).

    Linear and quadratic weights are those of Cohen 1968, over the ranks of the values. NaN if
    only one value occurs. Raises ValueError unless `a` and `b` are of equal shape [items].
    """
    import numpy as np

    x, y = np.asarray(a, float), np.asarray(b, float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"ratings of shapes {x.shape} and {y.shape}")
    power = {"none": 0, "linear": 1, "quadratic": 2}[weights]
    return _bootstrap_interval(
        lambda ratings: _weighted_kappa(ratings, power), np.stack([x, y]), "cohen kappa", options
    )


def _fleiss(ratings: NDArray[np.float64]) -> float:
    import numpy as np

    values = np.unique(ratings[~np.isnan(ratings)])
    counts = np.stack([(ratings == v).sum(0) for v in values], 1).astype(float)
    counts = counts[counts.sum(1) >= 2]
    if len(values) < 2 or not len(counts):
        return float("nan")
    n = counts.sum(1)
    p_observed = float(((counts * (counts - 1)).sum(1) / (n * (n - 1))).mean())
    p_values = counts.sum(0) / counts.sum()
    p_chance = float((p_values**2).sum())
    return (p_observed - p_chance) / (1 - p_chance) if p_chance < 1 else float("nan")


def fleiss_kappa(matrix: ArrayLike, *, options: BootstrapOptions = _DEFAULT_BOOTSTRAP) -> Interval:
    """Returns the nominal agreement of many raters (Fleiss 1971, Psych. Bull. 76:378).

    Items with a single rating are left out; the others may have different numbers of ratings.
    """
    import numpy as np

    return _bootstrap_interval(_fleiss, np.asarray(matrix, float), "fleiss kappa", options)


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
    """Returns the squared difference of every two values, `[values, values]`.

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
    # D_o = sum(o d) / n and D_e = sum(n_c n_k d) / (n (n - 1)): the ratings are drawn without
    # replacement.
    observed = float((coincidences * differences).sum())
    expected = float((np.outer(totals, totals) * differences).sum())
    return 1 - (float(totals.sum()) - 1) * observed / expected


def krippendorff_alpha(
    matrix: ArrayLike,
    measurement: Measurement = "nominal",
    *,
    options: BootstrapOptions = _DEFAULT_BOOTSTRAP,
) -> Interval:
    """Returns Krippendorff's alpha: reliability with any number of raters and with missing ratings.

    1 is perfect agreement, 0 what chance gives, below 0 systematic disagreement. Written from
    Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": alpha is 1 minus the
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

    ratings = np.asarray(matrix, float)
    if ratings.ndim != 2:
        raise ValueError(f"ratings of shape {ratings.shape}; expected [raters, items]")
    if np.isinf(ratings).any():
        raise ValueError("ratings hold infinite values")
    if measurement == "ratio" and (ratings < 0).any():
        raise ValueError("ratings at the ratio level hold negative values")
    return _bootstrap_interval(
        lambda sample: _alpha(sample, measurement),
        ratings,
        f"krippendorff alpha, {measurement}",
        options,
    )


def leave_one_out_alpha(
    matrix: ArrayLike,
    raters: Sequence[str],
    measurement: Measurement = "nominal",
    *,
    options: BootstrapOptions = _DEFAULT_BOOTSTRAP,
) -> dict[str, Interval]:
    """Returns alpha without each rater in turn, by the name of the rater left out.

    A rater without whom alpha rises disagrees with the others. Raises ValueError unless there is
    one name per row.
    """
    import numpy as np

    ratings = np.asarray(matrix, float)
    if len(raters) != len(ratings):
        raise ValueError(f"{len(raters)} raters for {len(ratings)} rows")
    return {
        rater: krippendorff_alpha(np.delete(ratings, row, axis=0), measurement, options=options)
        for row, rater in enumerate(raters)
    }


def alpha_by_category(
    matrix: ArrayLike,
    categories: Sequence[str],
    measurement: Measurement = "nominal",
    *,
    options: BootstrapOptions = _DEFAULT_BOOTSTRAP,
) -> dict[str, Interval]:
    """Returns alpha over the items of each category. Raises ValueError unless each item has one."""
    import numpy as np

    ratings, names = np.asarray(matrix, float), np.asarray(categories)
    if len(names) != ratings.shape[1]:
        raise ValueError(f"{len(names)} categories for {ratings.shape[1]} items")
    return {
        str(name): krippendorff_alpha(ratings[:, names == name], measurement, options=options)
        for name in np.unique(names)
    }


class DawidSkeneResult(msgspec.Struct, frozen=True):
    """Probability of "true" by item, sensitivity and specificity by rater, and the prevalence."""

    probability: tuple[float, ...]
    sensitivity: tuple[float, ...]
    specificity: tuple[float, ...]
    prevalence: float


def dawid_skene(
    matrix: ArrayLike, *, rounds: int = 200, tolerance: float = 1e-8
) -> DawidSkeneResult:
    """Fits the consensus of binary raters with different error rates, by expectation maximisation.

    Dawid & Skene 1979, Appl. Stat. 28:20. The raters must be better than chance on the whole: the
    likelihood is the same with the two labels exchanged, and the start at the majority decides
    between the two solutions.

    Args:
        matrix: ratings 0 or 1, `[raters, items]`, NaN where a rater gave none.
        rounds: the largest number of iterations.
        tolerance: stop when no probability changes by this much.

    Raises:
        ValueError: an item has no rating.
    """
    import numpy as np

    ratings = np.asarray(matrix, float)
    rated = ~np.isnan(ratings)
    if not rated.any(0).all():
        raise ValueError("an item without any rating")
    yes, no = rated & (ratings == 1), rated & (ratings == 0)
    p = np.clip(yes.sum(0) / rated.sum(0), 0.01, 0.99)
    for _ in range(rounds):
        # M step. One pseudo-item of each kind keeps the error rates off 0 and 1.
        sensitivity = (yes @ p + 1) / (rated @ p + 2)
        specificity = (no @ (1 - p) + 1) / (rated @ (1 - p) + 2)
        prevalence = float(p.mean())
        # E step, in logarithms: products over many raters underflow.
        log_true = np.log(prevalence) + np.log(sensitivity) @ yes + np.log(1 - sensitivity) @ no
        log_false = (
            np.log(1 - prevalence) + np.log(1 - specificity) @ yes + np.log(specificity) @ no
        )
        posterior = 1 / (1 + np.exp(np.clip(log_false - log_true, -700, 700)))
        posterior = np.clip(posterior, 1e-9, 1 - 1e-9)
        largest_change = float(np.abs(posterior - p).max())
        p = posterior
        if largest_change < tolerance:
            break
    return DawidSkeneResult(
        tuple(map(float, p)),
        tuple(map(float, sensitivity)),
        tuple(map(float, specificity)),
        prevalence,
    )
