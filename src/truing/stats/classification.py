"""How well a judge's verdicts and probabilities match labels: precision, recall, F1, AUROC, AP.

`p` holds probabilities, `y` labels, `verdicts` yes-or-no answers, all of shape [n]. `groups`
holds the prompt of each row: the bootstrap draws prompts, since the rows of one prompt are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from truing.stats.intervals import Interval, normal_quantile, wilson

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


def auroc(p: ArrayLike, y: ArrayLike, level: float = 0.95) -> Interval | None:
    """Returns the area under the ROC curve with DeLong's variance, on the logit scale.

    DeLong et al. 1988, Biometrics 44:837, by the mid-rank formulas of Sun & Xu 2014. Where the
    area is 0 or 1 the variance estimate is 0; the interval is then Wilson's for as many rows as
    the smaller class has. None unless both classes occur.
    """
    import numpy as np

    p, y = np.asarray(p, float), np.asarray(y, bool)
    m, n = int(y.sum()), int((~y).sum())
    if not m or not n:
        return None
    ranks, ranks_in_positives, ranks_in_negatives = _midranks(p), _midranks(p[y]), _midranks(p[~y])
    auc = float((ranks[y].sum() - m * (m + 1) / 2) / (m * n))

    # Structural components: for each positive (negative) row, the share of negatives (positives)
    # that it is ranked correctly against. With a single row the variance is at most 1/4.
    v10 = (ranks[y] - ranks_in_positives) / n
    v01 = 1 - (ranks[~y] - ranks_in_negatives) / m
    variance = (float(v10.var(ddof=1)) / m if m > 1 else 0.25) + (
        float(v01.var(ddof=1)) / n if n > 1 else 0.25
    )
    if auc in (0.0, 1.0) or variance == 0:
        bounds = wilson(auc * min(m, n), min(m, n), level)
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

    if groups is None:
        group_of_row = np.arange(n)
    else:
        group_of_row = np.unique(np.asarray(groups), return_inverse=True)[1]
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

    The interval is a percentile bootstrap over prompts. None without a positive row.
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
    return _percentile_interval(replicates, estimate, level)


def f1_score(
    verdicts: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    *,
    draws: int = 500,
    seed: int = 0,
) -> Interval | None:
    """Returns the harmonic mean of precision and recall (van Rijsbergen 1979, ch. 7).

    The interval is a percentile bootstrap over prompts. None if no row is positive or flagged.
    """
    import numpy as np

    f, y = np.asarray(verdicts, float), np.asarray(y, float)
    if not f.sum() + y.sum():
        return None
    w = _bootstrap_weights(groups, len(f), draws, seed)
    true_positives, flagged_plus_positive = w @ (f * y), w @ f + w @ y
    defined = flagged_plus_positive > 0
    with np.errstate(invalid="ignore"):
        f1 = 2 * true_positives / np.where(defined, flagged_plus_positive, 1)
    replicates = np.where(defined, f1, np.nan)
    estimate = float(2 * (f * y).sum() / (f.sum() + y.sum()))
    return _percentile_interval(replicates, estimate, level)


def classification_scores(
    verdicts: Sequence[bool],
    y: Sequence[bool],
    p: Sequence[float | None],
    groups: Sequence[str],
    level: float = 0.95,
) -> ClassificationScores:
    """Returns all scores of one question or category.

    Rows without a probability (None in `p`) are left out of AUROC and AP only.
    """
    import numpy as np

    f, truth = np.asarray(verdicts, bool), np.asarray(y, bool)
    n, positives, flagged = len(truth), int(truth.sum()), int(f.sum())
    true_positives, true_negatives = int((f & truth).sum()), int((~f & ~truth).sum())
    has_p = np.asarray([v is not None for v in p], bool)
    probabilities = np.asarray([v if v is not None else np.nan for v in p], float)[has_p]
    group_names = np.asarray(groups)
    ranked = len(probabilities) > 0
    return ClassificationScores(
        n=n,
        n_positive=positives,
        precision=wilson(true_positives, flagged, level) if flagged else None,
        recall=wilson(true_positives, positives, level) if positives else None,
        specificity=wilson(true_negatives, n - positives, level) if n > positives else None,
        f1=f1_score(f, truth, group_names, level) if n else None,
        auroc=auroc(probabilities, truth[has_p], level) if ranked else None,
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
