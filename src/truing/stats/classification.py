"""How well a judge's probabilities and verdicts match labels: precision, recall, F1, AUROC, AP, kappa, ranks.

`groups` are the prompts: rows of one prompt are resampled together.
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
    """One category (or one question) of a judge's card; none where the labels do not allow the figure."""

    n: int
    n_positive: int
    precision: Interval | None
    recall: Interval | None
    specificity: Interval | None
    f1: Interval | None
    auroc: Interval | None
    ap: Interval | None


def _midranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    _, at, counts = np.unique(x, return_inverse=True, return_counts=True)
    top = np.cumsum(counts)
    return np.asarray((top - (counts - 1) / 2)[at])


def auroc(p: ArrayLike, y: ArrayLike, level: float = 0.95) -> Interval | None:
    """Area under the ROC curve with DeLong's variance (DeLong et al. 1988, Biometrics 44:837) on the logit scale."""
    import numpy as np

    a, b = np.asarray(p, float), np.asarray(y, bool)
    m, n = int(b.sum()), int((~b).sum())
    if not m or not n:
        return None
    all_, pos, neg = _midranks(a), _midranks(a[b]), _midranks(a[~b])
    area = float((all_[b].sum() - m * (m + 1) / 2) / (m * n))
    v10, v01 = (all_[b] - pos) / n, 1 - (all_[~b] - neg) / m
    variance = (float(v10.var(ddof=1)) / m if m > 1 else 0.25) + (
        float(v01.var(ddof=1)) / n if n > 1 else 0.25
    )
    z = normal_quantile(level)
    if area in (0.0, 1.0) or variance == 0:
        edge = wilson(area * min(m, n), min(m, n), level)
        return Interval(area, edge.lower, edge.upper, "wilson at the smaller class")
    half = z * np.sqrt(variance) / (area * (1 - area))
    centre = np.log(area / (1 - area))
    lower, upper = (float(1 / (1 + np.exp(-(centre + s * half)))) for s in (-1, 1))
    return Interval(area, lower, upper, "delong, logit")


def _ap(a: NDArray[np.float64], b: NDArray[np.float64], w: NDArray[np.float64]) -> float:
    """Average precision with row weights; `a` sorted descending."""
    import numpy as np

    ends = np.flatnonzero(np.append(np.diff(a) != 0, True))
    hits, seen = np.cumsum(b * w)[ends], np.cumsum(w)[ends]
    if hits[-1] == 0:
        return float("nan")
    precision = hits / np.maximum(seen, 1e-12)
    return float((np.diff(np.append(0.0, hits)) * precision).sum() / hits[-1])


def _weights(groups: ArrayLike | None, n: int, draws: int, seed: int) -> NDArray[np.float64]:
    """Bootstrap weights [draws, n]: how often each row's prompt was drawn."""
    import numpy as np

    at = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    k = int(at.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), draws)
    return np.asarray(drawn[:, at], dtype=float)


def _bounds(
    values: NDArray[np.float64], estimate: float, level: float, name: str
) -> Interval | None:
    import numpy as np

    kept = values[~np.isnan(values)]
    if np.isnan(estimate) or not len(kept):
        return None
    lower, upper = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, min(estimate, float(lower)), max(estimate, float(upper)), name)


def average_precision(
    p: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    *,
    draws: int = 200,
    seed: int = 0,
) -> Interval | None:
    """Area under the precision-recall steps (Davis & Goadrich 2006), bootstrap over prompts."""
    import numpy as np

    a, b = np.asarray(p, float), np.asarray(y, float)
    order = np.argsort(-a, kind="stable")
    a, b = a[order], b[order]
    estimate = _ap(a, b, np.ones(len(a))) if len(a) else float("nan")
    if np.isnan(estimate):
        return None
    w = _weights(groups, len(a), draws, seed)[:, order]
    return _bounds(
        np.asarray([_ap(a, b, row) for row in w]), estimate, level, "bootstrap over prompts"
    )


def f1_score(
    verdicts: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    *,
    draws: int = 500,
    seed: int = 0,
) -> Interval | None:
    """Harmonic mean of precision and recall (van Rijsbergen 1979, ch. 7), bootstrap over prompts."""
    import numpy as np

    f, b = np.asarray(verdicts, float), np.asarray(y, float)
    if not f.sum() + b.sum():
        return None
    w = _weights(groups, len(f), draws, seed)
    hit, either = w @ (f * b), w @ f + w @ b
    with np.errstate(invalid="ignore"):
        drawn = np.where(either > 0, 2 * hit / np.where(either > 0, either, 1), np.nan)
    estimate = float(2 * (f * b).sum() / (f.sum() + b.sum()))
    return _bounds(drawn, estimate, level, "bootstrap over prompts")


def classification_scores(
    verdicts: Sequence[bool],
    y: Sequence[bool],
    p: Sequence[float | None],
    groups: Sequence[str],
    level: float = 0.95,
) -> ClassificationScores:
    """Everything a card says of one category; rows without a probability are left out of AUROC and AP alone."""
    import numpy as np

    f, b = np.asarray(verdicts, bool), np.asarray(y, bool)
    n, positive = len(b), int(b.sum())
    hit, said = int((f & b).sum()), int(f.sum())
    quiet = int((~f & ~b).sum())
    known = np.asarray([v is not None for v in p], bool)
    a = np.asarray([v if v is not None else np.nan for v in p], float)[known]
    where = np.asarray(groups)
    return ClassificationScores(
        n=n,
        n_positive=positive,
        precision=wilson(hit, said, level) if said else None,
        recall=wilson(hit, positive, level) if positive else None,
        specificity=wilson(quiet, n - positive, level) if n > positive else None,
        f1=f1_score(f, b, where, level) if n else None,
        auroc=auroc(a, b[known], level) if len(a) else None,
        ap=average_precision(a, b[known], where[known], level) if len(a) else None,
    )


def spearman_correlation(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Interval | None:
    """Rank correlation (Spearman 1904); Fisher's z with the variance of Bonett & Wright 2000 (Psychometrika 65:23)."""
    import numpy as np

    a, b = _midranks(np.asarray(x, float)), _midranks(np.asarray(y, float))
    n = len(a)
    if n < 5 or a.std() == 0 or b.std() == 0:
        return None
    r = float(np.corrcoef(a, b)[0, 1])
    half = normal_quantile(level) * np.sqrt((1 + r * r / 2) / (n - 3))
    centre = np.arctanh(min(max(r, -0.9999999), 0.9999999))
    return Interval(
        r, min(r, float(np.tanh(centre - half))), max(r, float(np.tanh(centre + half))), "fisher z"
    )


def pairwise_accuracy(
    safer: Sequence[float], other: Sequence[float], level: float = 0.95
) -> Interval | None:
    """Share of human safety pairs whose safer member the judge finds less harmful; ties count one half."""
    n = len(safer)
    if not n:
        return None
    wins = sum(1.0 if s < o else 0.5 if s == o else 0.0 for s, o in zip(safer, other, strict=True))
    return wilson(wins, n, level)
