"""Agreement between raters: Cohen, Fleiss, Krippendorff; a consensus of raters by Dawid-Skene.

A ratings matrix has one row per rater and one column per item, with NaN where a rater did not
rate. All coefficients come with an interval over items; see `agreement_intervals`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from truing.stats.agreement_intervals import (
    BootstrapOptions,
    WeightedItems,
    interval_over_items,
)
from truing.stats.intervals import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Measurement = Literal["nominal", "ordinal", "interval", "ratio"]
KappaWeights = Literal["none", "linear", "quadratic"]


_DEFAULT_BOOTSTRAP = BootstrapOptions()


def _kappas(
    confusion: NDArray[np.float64], disagreement: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns Cohen's kappa of confusion matrices, `[draws, values, values]`."""
    import numpy as np

    of_a, of_b, n = confusion.sum(2), confusion.sum(1), confusion.sum((1, 2))
    expected = ((of_a @ disagreement) * of_b).sum(1) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 - (confusion * disagreement).sum((1, 2)) / expected)


def _kappa_interval(
    confusions: NDArray[np.float64],
    disagreement: NDArray[np.float64],
    options: BootstrapOptions,
) -> Interval:
    """Returns kappa from the confusion matrix of each cluster, `[clusters, values, values]`."""
    import numpy as np

    n_values = len(disagreement)
    kinds, times = np.unique(confusions.reshape(len(confusions), -1), axis=0, return_counts=True)
    total = confusions.sum(0)
    per_cluster = total.sum() / len(confusions)
    # Raters who differ do so as chance would have it; those who agree, on any value.
    differing = np.outer(total.sum(1), total.sum(0))
    np.fill_diagonal(differing, 0.0)
    differing *= per_cluster / differing.sum()
    agreeing = np.eye(n_values) * per_cluster / n_values

    def kappas_of(weights: WeightedItems) -> NDArray[np.float64]:
        unseen = weights.added[:, None, None] * (differing if weights.differs else agreeing)
        seen = (weights.seen @ kinds).reshape(-1, n_values, n_values)
        return _kappas(seen + unseen, disagreement)

    estimate = float(_kappas(total[None], disagreement)[0])
    return interval_over_items(estimate, times, kappas_of, "cohen kappa", options)


def cohen_kappa(
    a: ArrayLike,
    b: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    weights: KappaWeights = "none",
    options: BootstrapOptions = _DEFAULT_BOOTSTRAP,
) -> Interval:
    """Returns the agreement of two raters beyond chance (Cohen 1960, Educ. Psych. Meas. 20:37).

    Linear and quadratic weights are those of Cohen 1968, over the ranks of the values. NaN if
    only one value occurs. The interval is over `groups` of items, such as the answers to one
    prompt; by default each item is its own. Raises ValueError unless `a` and `b` are of equal shape
    [items].
    """
    import numpy as np

    x, y = np.asarray(a, float), np.asarray(b, float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"ratings of shapes {x.shape} and {y.shape}")
    rated = ~np.isnan(x) & ~np.isnan(y)
    both_rated = np.stack([x, y])[:, rated]
    values = np.unique(both_rated)
    if len(values) < 2:
        return Interval(math.nan, math.nan, math.nan, "cohen kappa")
    rank = np.arange(len(values))
    power = {"none": 0, "linear": 1, "quadratic": 2}[weights]
    distance = np.abs(rank[:, None] - rank).astype(float)
    disagreement = distance**power if power else (distance > 0).astype(float)
    names = np.arange(len(x)) if groups is None else np.asarray(groups)
    group = np.unique(names[rated], return_inverse=True)[1]
    confusions = np.zeros((int(group.max()) + 1, len(values), len(values)))
    np.add.at(confusions, (group, *np.searchsorted(values, both_rated)), 1)
    return _kappa_interval(confusions, disagreement, options)


def _fleiss(agreement: NDArray[np.float64], totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns kappa from the mean agreement, `[draws]`, and the counts of values in total."""
    import numpy as np

    shares = totals / totals.sum(1, keepdims=True)
    by_chance = (shares**2).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((agreement - by_chance) / (1 - by_chance))


def fleiss_kappa(matrix: ArrayLike, *, options: BootstrapOptions = _DEFAULT_BOOTSTRAP) -> Interval:
    """Returns the nominal agreement of many raters (Fleiss 1971, Psych. Bull. 76:378).

    Items with a single rating are left out; the others may have different numbers of ratings.
    """
    import numpy as np

    values, counts = _count_values(np.asarray(matrix, float))
    if len(values) < 2:
        return Interval(math.nan, math.nan, math.nan, "fleiss kappa")
    kinds, times = np.unique(counts, axis=0, return_counts=True)
    n = kinds.sum(1)
    agreement = (kinds * (kinds - 1)).sum(1) / (n * (n - 1))
    unseen = _UnseenItem.like(counts)

    def kappas_of(weights: WeightedItems) -> NDArray[np.float64]:
        observed = weights.seen @ agreement + (0.0 if weights.differs else weights.added)
        return _fleiss(observed / times.sum(), unseen.totals(weights, kinds))

    estimate = float(
        _fleiss(np.atleast_1d(times @ agreement / times.sum()), counts.sum(0)[None])[0]
    )
    return interval_over_items(estimate, times, kappas_of, "fleiss kappa", options)


class _UnseenItem(msgspec.Struct, frozen=True):
    """Mean counts of the values in an item that nobody saw, `[values]`.

    Raters who differ there do so as chance would have it (`differing`); those who agree, on any
    value (`agreeing`). `seen_totals` are the counts of all items seen.
    """

    differing: NDArray[np.float64]
    agreeing: NDArray[np.float64]
    seen_totals: NDArray[np.float64]

    @classmethod
    def like(cls, counts: NDArray[np.float64]) -> _UnseenItem:
        """Returns the item with as many ratings as those of `counts`, `[items, values]`, have."""
        import numpy as np

        totals, per_item = counts.sum(0), float(counts.sum(1).mean())
        differing = totals * (totals.sum() - totals)
        n_values = len(totals)
        return cls(
            differing=per_item * differing / differing.sum(),
            agreeing=np.full(n_values, per_item / n_values),
            seen_totals=totals,
        )

    def totals(self, weights: WeightedItems, kinds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns how often each value occurs under weights, `[draws, values]`."""
        import numpy as np

        of_unseen = self.differing if weights.differs else self.agreeing
        return np.asarray(weights.seen @ kinds + weights.added[:, None] * of_unseen)


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


def _sum_differences(
    counts: NDArray[np.float64], positions: NDArray[np.float64], measurement: Measurement
) -> NDArray[np.float64]:
    """Returns the squared differences added over all ordered pairs of ratings.

    Args:
        counts: how often each value occurs, `[..., values]`; the result has one number a row.
        positions: of the values on the scale, `[values]` or `[..., values]`; see `_positions`.
        measurement: nominal ratings differ by 0 or 1, those of a ratio scale by (c - k) / (c + k).
    """
    import numpy as np

    n = counts.sum(-1)
    if measurement == "nominal":
        return np.asarray(n**2 - (counts**2).sum(-1))
    if measurement == "ratio":
        sums = positions[:, None] + positions
        differences = positions[:, None] - positions
        # c = k = 0 is 0 / 0: no difference.
        relative = np.divide(differences, sums, out=np.zeros_like(sums), where=sums != 0)
        return np.asarray(((counts @ relative**2) * counts).sum(-1))
    # The sum of n_c n_k (c - k)^2 is 2 (n sum(n_c c^2) - sum(n_c c)^2).
    first, second = (counts * positions).sum(-1), (counts * positions**2).sum(-1)
    return np.asarray(2 * np.maximum(0.0, n * second - first**2))


def _positions(
    values: NDArray[np.float64], totals: NDArray[np.float64], measurement: Measurement
) -> NDArray[np.float64]:
    """Returns where the values lie: those of ordinal ratings at their mid-ranks.

    `totals`, `[draws, values]`, holds how often each value occurs in pairable items. The distance
    of two ranks c and k is the sum of n_g for g from c to k, less half of n_c and of n_k: the
    difference of their mid-ranks.
    """
    import numpy as np

    if measurement == "ordinal":
        return np.asarray(np.cumsum(totals, -1) - totals / 2)
    # Centred, since squares of large numbers cancel; a ratio scale has its zero.
    return values if measurement == "ratio" else values - values.mean()


def _alphas(
    weights: WeightedItems,
    values: NDArray[np.float64],
    kinds: NDArray[np.float64],
    unseen: _UnseenItem,
    measurement: Measurement,
) -> NDArray[np.float64]:
    """Returns alpha = 1 - D_o / D_e of each draw of weights.

    D_o adds, for each item, its ordered pairs of ratings over (m - 1), m being its number of
    ratings; D_e all ordered pairs over (n - 1): ratings are drawn without replacement.
    """
    import numpy as np

    totals = unseen.totals(weights, kinds)
    positions = _positions(values, totals, measurement)
    per_item = 1 / (kinds.sum(1) - 1)
    if measurement == "ordinal":  # positions, and so the differences, are those of the draw
        by_item = np.stack([_sum_differences(kinds, p, measurement) for p in positions])
    else:
        by_item = _sum_differences(kinds, positions, measurement)
    observed = (weights.seen * (by_item * per_item)).sum(1)
    if weights.differs:
        # Two ratings that differ as chance has it: their mean squared difference.
        seen_totals = unseen.seen_totals
        n_differing = seen_totals.sum() ** 2 - (seen_totals**2).sum()
        mean = _sum_differences(seen_totals, positions, measurement) / n_differing
        observed = observed + weights.added * unseen.differing.sum() * mean
    n = totals.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = _sum_differences(totals, positions, measurement) / (n - 1)
        return np.asarray(1 - observed / expected)


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
        options: level, draws and seed of the interval, which is over items.

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
    method = f"krippendorff alpha, {measurement}"
    values, counts = _count_values(ratings)
    if len(values) < 2:  # no disagreement is to be expected, so alpha would be 0 / 0
        return Interval(math.nan, math.nan, math.nan, method)
    kinds, times = np.unique(counts, axis=0, return_counts=True)
    unseen = _UnseenItem.like(counts)

    def alphas_of(weights: WeightedItems) -> NDArray[np.float64]:
        return _alphas(weights, values, kinds, unseen, measurement)

    of_seen = WeightedItems(times[None].astype(float), np.zeros(1), differs=False)
    return interval_over_items(float(alphas_of(of_seen)[0]), times, alphas_of, method, options)


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
