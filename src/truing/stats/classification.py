"""How well a judge's verdicts and probabilities match labels: precision, recall, F1, AUROC, AP.

`p` holds probabilities, `y` labels, `verdicts` yes-or-no answers, all of shape [n]. `groups`
holds the prompt of each row: all intervals are over prompts, since the rows of one prompt are
alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from truing.stats.intervals import Interval, clustered_wilson, normal_quantile, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class ClassificationScores(Struct, frozen=True, kw_only=True):
    """The scores of one question or category; None where the labels do not allow the figure."""

    n: int
    n_positive: int
    precision: Interval | None
    recall: Interval | None
    specificity: Interval | None
    f1: Interval | None
    auroc: Interval | None
    ap: Interval | None


def _midranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the ranks from 1; equal values share the mean of their ranks."""
    import numpy as np

    _, value_index, counts = np.unique(x, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(counts)
    return np.asarray((last_rank - (counts - 1) / 2)[value_index])


def _number_groups(groups: ArrayLike | None, n: int) -> NDArray[np.int64]:
    """Returns the number of the group of each row; every row is its own without groups."""
    import numpy as np

    if groups is None:
        return np.arange(n)
    return np.asarray(np.unique(np.asarray(groups), return_inverse=True)[1], np.int64)


def _share_over_groups(
    events: NDArray[np.bool_], rows: NDArray[np.bool_], group: NDArray[np.int64], level: float
) -> Interval | None:
    """Returns the share of events among the selected rows; None without such rows."""
    import numpy as np

    if not rows.any():
        return None
    sizes = np.bincount(group[rows])
    of_group = np.bincount(group[rows & events], minlength=len(sizes))
    kinds, times = np.unique(np.stack([of_group, sizes], 1), axis=0, return_counts=True)
    return clustered_wilson(
        kinds[:, 0].tolist(), kinds[:, 1].tolist(), level, times=[int(t) for t in times]
    )


def _structural_components(
    p: NDArray[np.float64], y: NDArray[np.bool_]
) -> tuple[float, NDArray[np.float64]]:
    """Returns the area under the ROC curve and each row's part in its deviation (DeLong).

    A row's part is the share of rows of the other class that it is ranked correctly against, less
    the area, over the size of its own class.
    """
    import numpy as np

    m, n = int(y.sum()), int((~y).sum())
    ranks, ranks_in_positives, ranks_in_negatives = _midranks(p), _midranks(p[y]), _midranks(p[~y])
    auc = float((ranks[y].sum() - m * (m + 1) / 2) / (m * n))
    components = np.empty(len(y))
    components[y] = ((ranks[y] - ranks_in_positives) / n - auc) / m
    components[~y] = (1 - (ranks[~y] - ranks_in_negatives) / m - auc) / n
    return auc, components


def _smaller_class(y: NDArray[np.bool_], group: NDArray[np.int64]) -> int:
    """Returns the number of groups in the class that has fewer of them."""
    import numpy as np

    return min(len(np.unique(group[y])), len(np.unique(group[~y])))


def _variance_over_groups(
    components: NDArray[np.float64], group: NDArray[np.int64], smaller: int
) -> float:
    """Returns the variance of an area, or of a difference of two, from the rows' components."""
    import numpy as np

    # A group may hold rows of both classes, whose components then go together.
    variance = float((np.bincount(group, components) ** 2).sum())
    if smaller > 1:
        return variance * smaller / (smaller - 1)
    return variance + 0.25  # of one group nothing is known; the variance of a share is at most 1/4


def auroc(
    p: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None, level: float = 0.95
) -> Interval | None:
    """Returns the area under the ROC curve with DeLong's variance, on the logit scale.

    DeLong et al. 1988, Biometrics 44:837, by the mid-rank formulas of Sun & Xu 2014; over groups
    by Obuchowski 1997, Biometrics 53:567. Where the area is 0 or 1 the variance estimate is 0; the
    interval is then Wilson's for as many rows as there are groups in the smaller class. None unless
    both classes occur.
    """
    import numpy as np

    p, y = np.asarray(p, float), np.asarray(y, bool)
    m, n = int(y.sum()), int((~y).sum())
    if not m or not n:
        return None
    group = _number_groups(groups, len(y))
    auc, components = _structural_components(p, y)
    smaller = _smaller_class(y, group)
    variance = _variance_over_groups(components, group, smaller)
    if auc in (0.0, 1.0) or variance == 0:
        bounds = wilson(auc * smaller, smaller, level)
        return Interval(auc, bounds.lower, bounds.upper, "wilson at the smaller class")
    half_width = normal_quantile(level) * np.sqrt(variance) / (auc * (1 - auc))  # delta method
    logit = np.log(auc / (1 - auc))
    lower, upper = (float(1 / (1 + np.exp(-(logit + sign * half_width)))) for sign in (-1, 1))
    return Interval(auc, lower, upper, "delong, logit")


def _weighted_average_precision(
    p: NDArray[np.float64], y: NDArray[np.float64], w: NDArray[np.float64]
) -> float:
    """Returns the average precision with row weights w; p is sorted in descending order."""
    import numpy as np

    # Rows of equal probability enter the curve together, so only the last of each run counts.
    ends = np.flatnonzero(np.append(np.diff(p) != 0, True))
    true_positives, flagged = np.cumsum(y * w)[ends], np.cumsum(w)[ends]
    if true_positives[-1] == 0:
        return float("nan")
    precision = true_positives / np.maximum(flagged, 1e-12)
    steps = np.diff(np.append(0.0, true_positives))
    return float((steps * precision).sum() / true_positives[-1])


def _bootstrap_weights(
    groups: ArrayLike | None, n: int, draws: int, seed: int
) -> Iterator[NDArray[np.float64]]:
    """Yields weights of shape [n], one draw at a time: how often the group of each row was drawn.

    All draws of a million rows would not fit in memory.
    """
    import numpy as np

    group_of_row = _number_groups(groups, n)
    k = int(group_of_row.max()) + 1
    shares = np.full(k, 1 / k)
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.asarray(rng.multinomial(k, shares)[group_of_row], dtype=float)


def _percentile_interval(
    replicates: NDArray[np.float64], estimate: float, level: float
) -> Interval | None:
    import numpy as np

    defined = replicates[~np.isnan(replicates)]
    if np.isnan(estimate) or not len(defined):
        return None
    lower, upper = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        estimate,
        min(estimate, float(lower)),
        max(estimate, float(upper)),
        "bootstrap over prompts",
    )


class AurocDifference(Struct, frozen=True):
    """AUROC of b minus that of a on the same rows, and the two-sided p value of no difference."""

    difference: Interval
    p: float


def auroc_difference(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    level: float = 0.95,
) -> AurocDifference | None:
    """Returns the difference of two classifiers' areas under the ROC curve on the same rows.

    DeLong et al. 1988 for correlated areas; over groups by Obuchowski 1997. None unless both
    classes occur. Raises ValueError for different shapes.
    """
    import numpy as np

    a, b, truth = np.asarray(scores_a, float), np.asarray(scores_b, float), np.asarray(y, bool)
    if not a.shape == b.shape == truth.shape or a.ndim != 1:
        raise ValueError(f"paired probabilities of shapes {a.shape}, {b.shape} and {truth.shape}")
    if not truth.any() or truth.all():
        return None
    group = _number_groups(groups, len(truth))
    (area_a, parts_a), (area_b, parts_b) = (_structural_components(p, truth) for p in (a, b))
    difference = area_b - area_a
    smaller = _smaller_class(truth, group)
    variance = _variance_over_groups(parts_b - parts_a, group, smaller)
    if variance == 0 and difference:
        # Areas of 0, 1/2 (one score for all rows) and 1 have no variance that rows could show.
        variance = 0.25 / smaller
    error = float(np.sqrt(variance))
    half_width = normal_quantile(level) * error
    lower, upper = max(-1.0, difference - half_width), min(1.0, difference + half_width)
    p_value = math.erfc(abs(difference) / error / math.sqrt(2)) if difference else 1.0
    return AurocDifference(Interval(difference, lower, upper, "delong, paired"), p_value)


class RecallAtFalseAlarm(Struct, frozen=True):
    """Recall at the lowest threshold whose false alarms stay within a rate.

    `false_alarm` is the share of negative rows at that threshold: with ties it may be well below
    the rate that was asked for.
    """

    rate: float
    threshold: float
    false_alarm: float
    recall: Interval


def recall_at_false_alarm(
    p: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    rate: float,
    level: float = 0.95,
    draws: int = 200,
    seed: int = 0,
) -> RecallAtFalseAlarm | None:
    """Returns the recall at a fixed rate of false alarms, with an interval over groups.

    Each draw of the percentile bootstrap finds its own threshold, so the interval also covers that
    the threshold is estimated. None without a positive row, or with so few negative ones that a
    single false alarm would exceed the rate. Raises ValueError for a rate outside (0, 1).
    """
    import numpy as np

    if not 0 < rate < 1:
        raise ValueError(f"rate {rate!r} is not between 0 and 1")
    p, truth = np.asarray(p, float), np.asarray(y, bool)
    if not truth.any() or (~truth).sum() * rate < 1 - 1e-9:
        return None
    order = np.argsort(-p, kind="stable")
    scores, positive = p[order], truth[order].astype(float)
    # Rows of equal probability are flagged together, so only the last of each run is a threshold.
    ends = np.flatnonzero(np.append(np.diff(scores) != 0, True))

    def find_threshold(weights: NDArray[np.float64]) -> tuple[float, float, float]:
        alarms = np.cumsum(weights * (1 - positive))[ends]
        hits = np.cumsum(weights * positive)[ends]
        if not hits[-1] or not alarms[-1]:
            return math.nan, math.nan, math.inf
        allowed = int(np.searchsorted(alarms, rate * alarms[-1] + 1e-9, side="right"))
        if not allowed:
            return 0.0, 0.0, math.inf
        last = allowed - 1
        return hits[last] / hits[-1], alarms[last] / alarms[-1], float(scores[ends[last]])

    estimate, false_alarm, threshold = find_threshold(np.ones(len(p)))
    weights = _bootstrap_weights(groups, len(p), draws, seed)
    replicates = np.asarray([find_threshold(w[order])[0] for w in weights])
    recall = _percentile_interval(replicates, float(estimate), level)
    if recall is None:
        return None
    if recall.width == 0:
        rows = len(np.unique(_number_groups(groups, len(p))[truth]))
        bounds = wilson(recall.estimate * rows, rows, level)
        recall = Interval(recall.estimate, bounds.lower, bounds.upper, "wilson at the positives")
    return RecallAtFalseAlarm(rate, threshold, float(false_alarm), recall)


def average_precision(
    p: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    *,
    draws: int = 200,
    seed: int = 0,
) -> Interval | None:
    """Returns the area under the precision-recall steps (Davis & Goadrich 2006).

    The interval is a percentile bootstrap over groups, or, where every draw gives the same value,
    Wilson's for as many rows as there are groups of positive rows. None without a positive row.
    """
    import numpy as np

    p, y = np.asarray(p, float), np.asarray(y, float)
    order = np.argsort(-p, kind="stable")
    p, y = p[order], y[order]
    estimate = _weighted_average_precision(p, y, np.ones(len(p))) if len(p) else float("nan")
    if np.isnan(estimate):
        return None
    weights = _bootstrap_weights(groups, len(p), draws, seed)
    replicates = np.asarray([_weighted_average_precision(p, y, w[order]) for w in weights])
    interval = _percentile_interval(replicates, estimate, level)
    if interval is not None and interval.width == 0:
        rows = len(np.unique(_number_groups(groups, len(p))[order][y > 0]))
        bounds = wilson(estimate * rows, rows, level)
        return Interval(estimate, bounds.lower, bounds.upper, "wilson at the positive rows")
    return interval


def f1_score(
    verdicts: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None, level: float = 0.95
) -> Interval | None:
    """Returns the harmonic mean of precision and recall (van Rijsbergen 1979, ch. 7).

    F1 is 2 s / (1 + s), where s is the share of true positives among the rows that are positive or
    flagged, so its interval is that of s, over groups. None if no row is positive or flagged.
    """
    import numpy as np

    f, truth = np.asarray(verdicts, bool), np.asarray(y, bool)
    share = _share_over_groups(f & truth, f | truth, _number_groups(groups, len(f)), level)
    if share is None:
        return None
    estimate, lower, upper = (2 * s / (1 + s) for s in (share.estimate, share.lower, share.upper))
    return Interval(estimate, lower, upper, f"{share.method} of the overlap")


def classification_scores(
    verdicts: Sequence[bool],
    y: Sequence[bool],
    p: Sequence[float | None],
    groups: Sequence[str] | Sequence[int],
    level: float = 0.95,
) -> ClassificationScores:
    """Returns all scores of one question or category.

    Rows without a probability (None in `p`) are left out of AUROC and AP only.
    """
    import numpy as np

    f, truth = np.asarray(verdicts, bool), np.asarray(y, bool)
    n = len(truth)
    has_p = np.asarray([v is not None for v in p], bool)
    probabilities = np.asarray([v if v is not None else np.nan for v in p], float)[has_p]
    group_names = np.asarray(groups)
    ranked = len(probabilities) > 0
    group = _number_groups(group_names, n)
    return ClassificationScores(
        n=n,
        n_positive=int(truth.sum()),
        precision=_share_over_groups(truth, f, group, level),
        recall=_share_over_groups(f, truth, group, level),
        specificity=_share_over_groups(~f, ~truth, group, level),
        f1=f1_score(f, truth, group_names, level) if n else None,
        auroc=auroc(probabilities, truth[has_p], group_names[has_p], level) if ranked else None,
        ap=average_precision(probabilities, truth[has_p], group_names[has_p], level)
        if ranked
        else None,
    )


def spearman_correlation(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Interval | None:
    """Returns the rank correlation (Spearman 1904) with Fisher's z interval.

    The variance is that of Bonett & Wright 2000 (Psychometrika 65:23). None for fewer than five
    rows, or if x or y is constant.
    """
    import numpy as np

    x_ranks, y_ranks = _midranks(np.asarray(x, float)), _midranks(np.asarray(y, float))
    n = len(x_ranks)
    if n < 5 or x_ranks.std() == 0 or y_ranks.std() == 0:
        return None
    r = float(np.corrcoef(x_ranks, y_ranks)[0, 1])
    half_width = normal_quantile(level) * np.sqrt((1 + r * r / 2) / (n - 3))
    z = np.arctanh(min(max(r, -0.9999999), 0.9999999))  # arctanh(1) is infinite
    lower, upper = float(np.tanh(z - half_width)), float(np.tanh(z + half_width))
    return Interval(r, min(r, lower), max(r, upper), "fisher z")


def pairwise_accuracy(
    safer: Sequence[float], other: Sequence[float], level: float = 0.95
) -> Interval | None:
    """Returns the share of pairs whose safer member (by people) has the lower probability of harm.

    Ties count one half. None without pairs; ValueError for sequences of different lengths.
    """
    n = len(safer)
    if not n:
        return None
    wins = sum(1.0 if s < o else 0.5 if s == o else 0.0 for s, o in zip(safer, other, strict=True))
    return wilson(wins, n, level)
