"""How well a judge's verdicts and probabilities match labels: precision, recall, F1, AUROC, AP.

`p` holds probabilities, `y` labels, `verdicts` yes-or-no answers, all of shape [n]. `groups`
holds the prompt of each row: all intervals are over prompts, since the rows of one prompt are
alike.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    ranks, ranks_in_positives, ranks_in_negatives = _midranks(p), _midranks(p[y]), _midranks(p[~y])
    auc = float((ranks[y].sum() - m * (m + 1) / 2) / (m * n))

    # Structural components: for each positive (negative) row, the share of negatives (positives)
    # that it is ranked correctly against.
    components = np.empty(len(y))
    components[y] = ((ranks[y] - ranks_in_positives) / n - auc) / m
    components[~y] = (1 - (ranks[~y] - ranks_in_negatives) / m - auc) / n
    # A group may hold rows of both classes, whose components then go together.
    variance = float((np.bincount(group, components) ** 2).sum())
    smaller = min(len(np.unique(group[y])), len(np.unique(group[~y])))
    if smaller > 1:
        variance *= smaller / (smaller - 1)
    else:
        variance += 0.25  # of one group nothing is known; the variance of a share is at most 1/4
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
) -> NDArray[np.float64]:
    """Returns weights of shape [draws, n]: how often the group of each row was drawn."""
    import numpy as np

    group_of_row = _number_groups(groups, n)
    k = int(group_of_row.max()) + 1
    times_drawn = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), draws)
    return np.asarray(times_drawn[:, group_of_row], dtype=float)


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
    weights = _bootstrap_weights(groups, len(p), draws, seed)[:, order]
    replicates = np.asarray([_weighted_average_precision(p, y, w) for w in weights])
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
