"""Rates that allow for a judge's errors, from labels of the same run or from a judge card.

*Corrected*: prediction-powered inference, PPI++ (Angelopoulos, Duchi & Zrnic, arXiv 2311.01453),
in the inverse-probability-weighted form for rows drawn with known probabilities (active
inference: Zrnic & Candès, arXiv 2403.03208). Its interval is asymptotic; with fewer than 10
positive or 10 negative labels, an exact or betting interval of the labels alone replaces it.
`anytime` asks for intervals that stay valid when people look, label more, and look again.

*Transported*: the estimator of Rogan & Gladen 1978 with the interval of Lang & Reiczigel 2014,
in a band over sensitivity and specificity, and refused where the raw rate contradicts the card.
Rate and interval always come from one method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from truing.stats.intervals import (
    Interval,
    clopper_pearson,
    normal_quantile,
    student_quantile,
    wilson,
)
from truing.stats.sequential import (
    anytime_quantile,
    anytime_rate_interval,
    betting_interval,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

MIN_LABELS_PER_CLASS = 10
"""With fewer positive or negative labels than this, no asymptotic interval is used."""
MIN_YOUDEN = 0.1
"""With less sensitivity + specificity - 1 (Youden 1950, Cancer 3:32), no rate is corrected.

A corrected rate is divided by it (Rogan & Gladen 1978), so that one point of a raw rate would be
more than ten points of the true one. The number is a convention of this project, from no paper.
"""
_MIN_YOUDEN_IN_BAND = 0.02  # at a corner of the band below this, the rate can be anything


class PPIEstimate(Struct, frozen=True):
    """A prediction-powered mean with the influence of each row (or cluster) on it.

    Attributes:
        estimate: the mean.
        values: influence values; the difference of two estimates over the same prompts has the
            difference of their values.
        tuning: the weight of the judge's verdicts, between 0 (ignored) and 1.
        labels: number of labels.
        positives: number of positive labels.
    """

    estimate: float
    values: tuple[float, ...]
    tuning: float
    labels: int
    positives: int

    @property
    def error(self) -> float:
        """Standard error of the estimate."""
        return math.sqrt(sum(v * v for v in self.values)) / len(self.values)


def _check_arrays(
    judged: ArrayLike, labels: ArrayLike, probability: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    import numpy as np

    f, y, q = np.asarray(judged, float), np.asarray(labels, float), np.asarray(probability, float)
    if not len(f) or f.shape != y.shape or f.shape != q.shape:
        raise ValueError(
            f"judged, labels and probability of shapes {f.shape}, {y.shape}, {q.shape}"
        )
    if np.isnan(f).any():
        raise ValueError(
            "judged holds NaN: leave out the rows that were not scored, and count them separately"
        )
    labelled = ~np.isnan(y)
    if not labelled.any():
        raise ValueError("no labels")
    if not ((q[labelled] > 0) & (q[labelled] <= 1)).all():
        raise ValueError("each labelled row needs its probability of being drawn, in (0, 1]")
    return f, y, q


def ppi_mean(
    judged: ArrayLike,
    labels: ArrayLike,
    probability: ArrayLike,
    clusters: Sequence[int] | None = None,
    *,
    weights: ArrayLike | None = None,
) -> PPIEstimate:
    """Returns the PPI++ estimate of the mean label.

    The weights of the labels are normalised (Hájek 1971). The tuning constant minimises the
    estimated variance within [0, 1], so that a judge without information costs nothing.

    Args:
        judged: the judge's verdicts on all rows, shape [n].
        labels: people's labels, NaN where the row has none, shape [n].
        probability: the probability with which each row was drawn for a label, shape [n].
        clusters: the cluster (prompt) of each row; influence values are summed within clusters.
        weights: how much each row counts in the mean, shape [n]; all the same by default.

    Raises:
        ValueError: shapes differ, verdicts are missing, or there are no labels.
    """
    import numpy as np

    f, y, q = _check_arrays(judged, labels, probability)
    n, labelled = len(f), ~np.isnan(y)
    share = np.ones(n) if weights is None else np.asarray(weights, float)
    share = share * (n / share.sum())  # mean 1
    w = np.where(labelled, share / np.where(labelled, q, 1.0), 0.0)
    w *= n / w.sum()
    y0 = np.where(labelled, y, 0.0)
    y_mean = float((w * y0).mean())
    f_mean, f_labelled = float((share * f).mean()), float((w * f).mean())

    # Influence of each row on the weighted mean of the labels (a), and on the difference between
    # the judge's mean over all rows and over the labelled ones (b).
    a = w * (y0 - y_mean)
    b = share * (f - f_mean) - w * (f - f_labelled)
    if clusters is not None:
        cluster_of_row = np.unique(np.asarray(clusters), return_inverse=True)[1]
        a, b = (np.bincount(cluster_of_row, part).astype(float) for part in (a, b))
    b_squared = float((b * b).sum())
    tuning = min(1.0, max(0.0, -float((a * b).sum()) / b_squared)) if b_squared > 0 else 0.0

    values = (a + tuning * b) * (len(a) / n)
    estimate = y_mean + tuning * (f_mean - f_labelled)
    positives = int(y0[labelled].sum())
    return PPIEstimate(estimate, tuple(map(float, values)), tuning, int(labelled.sum()), positives)


def corrected_rate(
    judged: ArrayLike,
    labels: ArrayLike,
    probability: ArrayLike,
    clusters: Sequence[int] | None = None,
    level: float = 0.95,
    *,
    anytime: bool = False,
) -> Interval:
    """Returns the rate of events as people label them, from labels of drawn rows.

    With enough labels of both kinds: PPI++ with Wilson's form at the effective sample size
    (method "ppi++"). With few: the labels alone, by Clopper & Pearson if each row had the same
    probability, else by betting on weighted labels. With `anytime`, the number of labels may depend
    on what was seen: "ppi++, any time" has the wider quantile of a confidence sequence, few labels
    that of a mixture, and few weighted ones no bounds but 0 and 1. Arguments and errors as for
    `ppi_mean`.
    """
    import numpy as np

    f, y, q = _check_arrays(judged, labels, probability)
    labelled = ~np.isnan(y)
    positives = int(y[labelled].sum())
    negatives = int(labelled.sum()) - positives
    if min(positives, negatives) >= MIN_LABELS_PER_CLASS:
        ppi = ppi_mean(f, y, q, clusters)
        n = len(ppi.values)
        p = min(1.0, max(0.0, ppi.estimate))
        variance = ppi.error**2 * n / max(1, n - 1)
        if 0 < p < 1 and variance > 0:
            effective = max(2.0, p * (1 - p) / variance)
            if anytime:
                quantile = anytime_quantile(level, ppi.labels)
                return _wilson_at_size(p, effective, quantile, "ppi++, any time")
            return _wilson_at_size(p, effective, student_quantile(level, ppi.labels - 1), "ppi++")
    return _rate_of_labels(y, q, clusters, level, anytime=anytime)


def _wilson_at_size(p: float, n: float, z: float, method: str) -> Interval:
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half_width = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    lower, upper = max(0.0, min(p, centre - half_width)), min(1.0, max(p, centre + half_width))
    return Interval(p, lower, upper, method)


def _rate_of_labels(
    y: NDArray[np.float64],
    q: NDArray[np.float64],
    clusters: Sequence[int] | None,
    level: float,
    *,
    anytime: bool,
) -> Interval:
    """Returns the rate by the labels alone: exact for equal probabilities, else by betting."""
    import numpy as np

    labelled = ~np.isnan(y)
    rows = np.flatnonzero(labelled)
    # A fixed permutation: the betting sequence assumes random order, rows may be sorted.
    order = np.random.default_rng(0).permutation(len(y))
    if clusters is not None:
        # Both methods need independent rows: keep the first labelled answer of each prompt.
        cluster_of_row = np.asarray(clusters)
        _, first = np.unique(cluster_of_row[rows], return_index=True)
        rows = rows[np.sort(first)]
    if np.ptp(q[labelled]) < 1e-9:
        of_counts = anytime_rate_interval if anytime else clopper_pearson
        return of_counts(int(y[rows].sum()), len(rows), level)
    hajek_mean = float((y[rows] / q[rows]).sum() / (1 / q[rows]).sum())
    if anytime:
        # The order in which people labelled is not known, and a betting sequence needs it.
        return Interval(hajek_mean, 0.0, 1.0, "none: too few weighted labels to look again")

    # y q_min / q lies in [0, 1] and has mean (over all rows, 0 where unlabelled) q_min times the
    # rate, so an interval for its mean divided by q_min is one for the rate.
    q_min = float(q[labelled].min())
    weighted = np.zeros(len(y))
    weighted[rows] = y[rows] * q_min / q[rows]
    interval = betting_interval(weighted[order].tolist(), level)
    lower, upper = interval.lower / q_min, min(1.0, interval.upper / q_min)
    estimate = min(max(hajek_mean, lower), upper)
    return Interval(estimate, min(lower, upper), upper, "betting on weighted labels")


def corrected_difference(
    a: PPIEstimate,
    b: PPIEstimate,
    level: float = 0.95,
    *,
    paired: bool = True,
    anytime: bool = False,
) -> Interval:
    """Returns the difference b - a of two corrected rates.

    `paired` says that the influence values of both belong to the same prompts in the same order;
    ValueError if their numbers then differ. `anytime` as of `corrected_rate`.
    """
    difference = b.estimate - a.estimate
    if paired:
        if len(a.values) != len(b.values):
            raise ValueError("paired estimates need the influence values of the same prompts")
        error = math.sqrt(sum((y - x) ** 2 for x, y in zip(a.values, b.values))) / len(a.values)
    else:
        error = math.hypot(a.error, b.error)
    fewest = max(2, min(a.labels, b.labels))
    quantile = anytime_quantile(level, fewest) if anytime else student_quantile(level, fewest - 1)
    lower = max(-1.0, difference - quantile * error)
    upper = min(1.0, difference + quantile * error)
    method = "ppi++ difference, any time" if anytime else "ppi++ difference"
    return Interval(difference, lower, upper, method)


class JudgeErrorRates(Struct, frozen=True, kw_only=True):
    """A judge's sensitivity and specificity, with the numbers of rows that they were measured on.

    `positives` or `negatives` of None means that the rate is known exactly.
    """

    sensitivity: float
    specificity: float
    positives: int | None = None
    negatives: int | None = None


class TransportEstimate(Struct, frozen=True, kw_only=True):
    """A rate under a card's error rates, with its band; or the reason (`refused`) for none."""

    interval: Interval | None
    band: tuple[float, float] | None
    delta: float
    refused: str | None = None
    note: str = "assumes transport"


def rogan_gladen(raw: float, sensitivity: float, specificity: float) -> float:
    """Returns (raw + sp - 1) / (se + sp - 1), not clipped (Rogan & Gladen 1978, AJE 107:71)."""
    return (raw + specificity - 1) / (sensitivity + specificity - 1)


def _lang_reiczigel(events: float, n: float, error: JudgeErrorRates, level: float) -> Interval:
    """Returns the interval of Lang & Reiczigel 2014 (Prev. Vet. Med. 113:13).

    The rates enter with the paper's pseudo-counts: one of each kind for se and sp, z^2 / 2 for
    the raw rate.
    """
    z = normal_quantile(level)
    q = (events + z * z / 2) / (n + z * z)
    se_known, sp_known = error.positives is None, error.negatives is None
    n_se, n_sp = float(error.positives or 1), float(error.negatives or 1)
    se = error.sensitivity if se_known else (n_se * error.sensitivity + 1) / (n_se + 2)
    sp = error.specificity if sp_known else (n_sp * error.specificity + 1) / (n_sp + 2)
    youden = se + sp - 1
    p = (q + sp - 1) / youden
    var_se = 0.0 if se_known else se * (1 - se) / (n_se + 2)
    var_sp = 0.0 if sp_known else sp * (1 - sp) / (n_sp + 2)
    shift = 2 * z * z * (p * var_se - (1 - p) * var_sp)
    variance = q * (1 - q) / (n + z * z) + p * p * var_se + (1 - p) ** 2 * var_sp
    deviation = math.sqrt(variance) / youden
    lower, upper = (min(1.0, max(0.0, p + shift + sign * z * deviation)) for sign in (-1, 1))
    point = min(1.0, max(0.0, rogan_gladen(events / n, error.sensitivity, error.specificity)))
    return Interval(point, min(point, lower), max(point, upper), "rogan-gladen, lang-reiczigel")


def transported_rate(
    events: float, n: float, error: JudgeErrorRates, level: float = 0.95, *, delta: float = 0.05
) -> TransportEstimate:
    """Returns a raw rate corrected by error rates measured on other data or models.

    The band holds the intervals at the four corners of +-`delta` around both error rates. The
    correction is refused if the judge is hardly better than chance, or if the raw rate lies
    outside [1 - specificity, sensitivity] by more than the noise of both: the card's error rates
    then do not hold here, and no correction by them means anything.
    """
    refusal = _refusal_reason(events, n, error, level)
    if refusal:
        return TransportEstimate(interval=None, band=None, delta=delta, refused=refusal)
    interval = _lang_reiczigel(events, n, error, level)
    lowers, uppers = [interval.lower], [interval.upper]
    for se_shift in (-delta, delta):
        for sp_shift in (-delta, delta):
            se = min(1.0, error.sensitivity + se_shift)
            sp = min(1.0, error.specificity + sp_shift)
            if se + sp - 1 <= _MIN_YOUDEN_IN_BAND:
                lowers.append(0.0)
                uppers.append(1.0)
                continue
            shifted = structs.replace(error, sensitivity=se, specificity=sp)
            corner = _lang_reiczigel(events, n, shifted, level)
            lowers.append(corner.lower)
            uppers.append(corner.upper)
    return TransportEstimate(interval=interval, band=(min(lowers), max(uppers)), delta=delta)


def _rate_variance(rate: float, n: float | None) -> float:
    """Returns the variance of a rate of n rows, 0 if it is known exactly (n is None).

    Two pseudo-rows of each kind keep it above 0 for 0 of n (Agresti & Coull 1998).
    """
    if n is None:
        return 0.0
    p = (rate * n + 2) / (n + 4)
    return p * (1 - p) / (n + 4)


def _lower_bound(rate: float, n: int | None, level: float) -> float:
    return rate if n is None else wilson(rate * n, n, level).lower


def _refusal_reason(events: float, n: float, error: JudgeErrorRates, level: float) -> str | None:
    se, sp = error.sensitivity, error.specificity
    se_lower = _lower_bound(se, error.positives, level)
    sp_lower = _lower_bound(sp, error.negatives, level)
    if se_lower + sp_lower - 1 <= MIN_YOUDEN:
        return (
            f"sensitivity {se:.2f} and specificity {sp:.2f} are too near to chance for a correction"
        )
    raw = wilson(events, n, level).estimate
    raw_variance = _rate_variance(raw, n)
    z = NormalDist().inv_cdf(level)  # one-sided: is the raw rate on the wrong side of the limit?
    below_noise = z * math.sqrt(raw_variance + _rate_variance(sp, error.negatives))
    if 1 - sp - raw > below_noise:
        return (
            f"the raw rate {raw:.3f} is below 1 - specificity = {1 - sp:.3f} by more than noise: "
            "the card's false positives alone would give more; its error rates do not hold on "
            "this run"
        )
    above_noise = z * math.sqrt(raw_variance + _rate_variance(se, error.positives))
    if raw - se > above_noise:
        return (
            f"the raw rate {raw:.3f} is above the sensitivity {se:.3f} by more than noise: "
            "the card's error rates do not hold on this run"
        )
    return None
