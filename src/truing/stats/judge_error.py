"""Judges err: rates corrected by human labels of this run, or transported from a card made elsewhere.

*Corrected*: prediction-powered inference, PPI++ (Angelopoulos, Duchi & Zrnic, arXiv 2311.01453), in its
inverse-probability-weighted form for rows drawn with known probabilities (active inference: Zrnic & Candès,
arXiv 2403.03208). Its interval is asymptotic; with under 10 positive or 10 negative labels an exact or betting
interval of the labels alone is given instead. *Transported*: Rogan & Gladen 1978 with the interval of Lang &
Reiczigel 2014, in a band over sensitivity and specificity, refused where the raw rate contradicts the card. Rate and
interval always come from one method.
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

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

MIN_LABELS_PER_CLASS = 10  # under so many positive or negative labels, no asymptotic interval


class PPIEstimate(Struct, frozen=True):
    """A corrected estimate with each row's (or cluster's) influence on it; differences of arms are made of two."""

    estimate: float
    values: tuple[float, ...]
    tuning: float
    labels: int
    positives: int

    @property
    def error(self) -> float:
        """Standard error."""
        return math.sqrt(sum(v * v for v in self.values)) / len(self.values)


def _arrays(
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
            "judged holds NaN: leave out the rows that were not scored, and count them beside"
        )
    known = ~np.isnan(y)
    if not known.any():
        raise ValueError("no labels")
    if not ((q[known] > 0) & (q[known] <= 1)).all():
        raise ValueError("each labelled row needs its probability of being drawn, in (0, 1]")
    return f, y, q


def ppi_mean(
    judged: ArrayLike,
    labels: ArrayLike,
    probability: ArrayLike,
    clusters: Sequence[int] | None = None,
) -> PPIEstimate:
    """PPI++ mean: `judged` for all rows, `labels` with NaN where not drawn, `probability` of each row's being drawn.

    Weights are normalised (Hájek 1971); the tuning constant minimises the estimated variance and lies in [0, 1]: a
    useless judge costs nothing.
    """
    import numpy as np

    f, y, q = _arrays(judged, labels, probability)
    n, known = len(f), ~np.isnan(y)
    w = np.where(known, 1 / np.where(known, q, 1.0), 0.0)
    w *= n / w.sum()
    truth = np.where(known, y, 0.0)
    y_mean, f_mean, f_known = float((w * truth).mean()), float(f.mean()), float((w * f).mean())
    a = w * (truth - y_mean)
    b = (f - f_mean) - w * (f - f_known)
    if clusters is not None:
        group = np.unique(np.asarray(clusters), return_inverse=True)[1]
        a, b = (np.bincount(group, part).astype(float) for part in (a, b))
    spread = float((b * b).sum())
    tuning = min(1.0, max(0.0, -float((a * b).sum()) / spread)) if spread > 0 else 0.0
    values = (a + tuning * b) * (len(a) / n)
    estimate = y_mean + tuning * (f_mean - f_known)
    positives = int(truth[known].sum())
    return PPIEstimate(estimate, tuple(map(float, values)), tuning, int(known.sum()), positives)


def corrected_rate(
    judged: ArrayLike,
    labels: ArrayLike,
    probability: ArrayLike,
    clusters: Sequence[int] | None = None,
    level: float = 0.95,
) -> Interval:
    """The rate of human-labelled events, from drawn labels and the judge's verdicts on all rows.

    Asymptotic case: PPI++ with a Wilson interval at the effective sample size (method "ppi++"). Few labels of one
    kind: Clopper-Pearson of the labels if each row had the same probability, else betting on weighted labels.
    """
    import numpy as np

    f, y, q = _arrays(judged, labels, probability)
    known = ~np.isnan(y)
    positives = int(y[known].sum())
    if min(positives, int(known.sum()) - positives) >= MIN_LABELS_PER_CLASS:
        made = ppi_mean(f, y, q, clusters)
        p = min(1.0, max(0.0, made.estimate))
        variance = made.error**2 * len(made.values) / max(1, len(made.values) - 1)
        if 0 < p < 1 and variance > 0:
            effective = max(2.0, p * (1 - p) / variance)
            z = student_quantile(level, made.labels - 1)
            centre = (p + z * z / (2 * effective)) / (1 + z * z / effective)
            half = (
                z
                / (1 + z * z / effective)
                * math.sqrt(p * (1 - p) / effective + (z / (2 * effective)) ** 2)
            )
            return Interval(
                p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), "ppi++"
            )
    return _few(y, q, known, clusters, level)


def _few(
    y: NDArray[np.float64],
    q: NDArray[np.float64],
    known: NDArray[np.bool_],
    clusters: Sequence[int] | None,
    level: float,
) -> Interval:
    """Labels alone: exact for equal probabilities (one label a prompt), betting on weighted labels otherwise."""
    import numpy as np

    rows = np.flatnonzero(known)
    order = np.random.default_rng(0).permutation(len(y))
    if clusters is not None:  # one labelled answer a prompt keeps rows independent
        group = np.asarray(clusters)
        _, first = np.unique(group[rows], return_index=True)
        rows = rows[np.sort(first)]
    if np.ptp(q[known]) < 1e-9:
        return clopper_pearson(int(y[rows].sum()), len(rows), level)
    from truing.stats.sequential import betting_interval

    least = float(q[known].min())
    values = np.zeros(len(y))
    values[rows] = y[rows] * least / q[rows]
    made = betting_interval(values[order].tolist(), level)
    total = float((y[rows] / q[rows]).sum() / (1 / q[rows]).sum())
    lower, upper = made.lower / least, min(1.0, made.upper / least)
    return Interval(
        min(max(total, lower), upper), min(lower, upper), upper, "betting on weighted labels"
    )


def corrected_difference(
    a: PPIEstimate, b: PPIEstimate, level: float = 0.95, *, paired: bool = True
) -> Interval:
    """Difference b - a of two corrected rates; `paired` if the influences are of the same prompts in the same order."""
    d = b.estimate - a.estimate
    if paired:
        if len(a.values) != len(b.values):
            raise ValueError("paired arms need the influences of the same prompts")
        error = math.sqrt(sum((y - x) ** 2 for x, y in zip(a.values, b.values))) / len(a.values)
    else:
        error = math.hypot(a.error, b.error)
    half = student_quantile(level, max(1, min(a.labels, b.labels) - 1)) * error
    return Interval(d, max(-1.0, d - half), min(1.0, d + half), "ppi++ difference")


class JudgeErrorRates(Struct, frozen=True, kw_only=True):
    """A judge's sensitivity and specificity, with the numbers of positives and negatives behind them (none = exact)."""

    sensitivity: float
    specificity: float
    positives: int | None = None
    negatives: int | None = None


class TransportEstimate(Struct, frozen=True, kw_only=True):
    """A rate under a card's error rates, with its band; `refused` has the reason when there is no such rate."""

    interval: Interval | None
    band: tuple[float, float] | None
    delta: float
    refused: str | None = None
    note: str = "assumes transport"


def rogan_gladen(raw: float, sensitivity: float, specificity: float) -> float:
    """(raw + specificity - 1) / (sensitivity + specificity - 1), not clipped (Rogan & Gladen 1978, AJE 107:71)."""
    return (raw + specificity - 1) / (sensitivity + specificity - 1)


def _lang_reiczigel(events: float, n: float, error: JudgeErrorRates, level: float) -> Interval:
    """Lang & Reiczigel 2014, Prev. Vet. Med. 113:13."""
    z = normal_quantile(level)
    q = (events + z * z / 2) / (n + z * z)
    known_se, known_sp = error.positives is None, error.negatives is None
    n_se, n_sp = float(error.positives or 1), float(error.negatives or 1)
    se = error.sensitivity if known_se else (n_se * error.sensitivity + 1) / (n_se + 2)
    sp = error.specificity if known_sp else (n_sp * error.specificity + 1) / (n_sp + 2)
    youden = se + sp - 1
    p = (q + sp - 1) / youden
    v_se = 0.0 if known_se else se * (1 - se) / (n_se + 2)
    v_sp = 0.0 if known_sp else sp * (1 - sp) / (n_sp + 2)
    shift = 2 * z * z * (p * v_se - (1 - p) * v_sp)
    deviation = math.sqrt(q * (1 - q) / (n + z * z) + p * p * v_se + (1 - p) ** 2 * v_sp) / youden
    lower, upper = (min(1.0, max(0.0, p + shift + sign * z * deviation)) for sign in (-1, 1))
    point = min(1.0, max(0.0, rogan_gladen(events / n, error.sensitivity, error.specificity)))
    return Interval(point, min(point, lower), max(point, upper), "rogan-gladen, lang-reiczigel")


def transported_rate(
    events: float, n: float, error: JudgeErrorRates, level: float = 0.95, *, delta: float = 0.05
) -> TransportEstimate:
    """A raw rate read through a card made on other data or models, with a band of +-`delta` on both error rates.

    Refused if the judge is hardly better than chance, or if the raw rate lies outside [1 - specificity, sensitivity]
    by more than the noise of both: then the card's error rates do not hold here, and any "correction" is fiction.
    """
    refuse = _refusal(events, n, error, level)
    if refuse:
        return TransportEstimate(interval=None, band=None, delta=delta, refused=refuse)
    made = _lang_reiczigel(events, n, error, level)
    lows, highs = [made.lower], [made.upper]
    for up in (-delta, delta):
        for down in (-delta, delta):
            se, sp = min(1.0, error.sensitivity + up), min(1.0, error.specificity + down)
            if se + sp - 1 <= 0.02:
                lows.append(0.0)
                highs.append(1.0)
                continue
            moved = structs.replace(error, sensitivity=se, specificity=sp)
            corner = _lang_reiczigel(events, n, moved, level)
            lows.append(corner.lower)
            highs.append(corner.upper)
    return TransportEstimate(interval=made, band=(min(lows), max(highs)), delta=delta)


def _variance(rate: float, rows: float | None) -> float:
    """Of a rate, shrunk so that 0 of n still has some (Agresti & Coull 1998); 0 if it is known exactly."""
    if rows is None:
        return 0.0
    p = (rate * rows + 2) / (rows + 4)
    return p * (1 - p) / (rows + 4)


def _refusal(events: float, n: float, error: JudgeErrorRates, level: float) -> str | None:
    def bounds(rate: float, rows: int | None) -> tuple[float, float]:
        if rows is None:
            return rate, rate
        got = wilson(rate * rows, rows, level)
        return got.lower, got.upper

    se, sp = bounds(error.sensitivity, error.positives), bounds(error.specificity, error.negatives)
    if se[0] + sp[0] - 1 <= 0.1:
        return (
            f"sensitivity {error.sensitivity:.2f} and specificity {error.specificity:.2f} are too near to chance "
            "for a correction"
        )
    raw = wilson(events, n, level)
    edge = NormalDist().inv_cdf(
        level
    )  # one-sided: is the raw rate on the wrong side of the card's limit?
    noise = [
        _variance(error.specificity, error.negatives),
        _variance(error.sensitivity, error.positives),
    ]
    own = _variance(raw.estimate, n)
    if 1 - error.specificity - raw.estimate > edge * math.sqrt(own + noise[0]):
        return (
            f"the raw rate {raw.estimate:.3f} is below 1 - specificity = {1 - error.specificity:.3f} by more than "
            "noise: the card's false positives alone would give more; its error rates do not hold on this run"
        )
    if raw.estimate - error.sensitivity > edge * math.sqrt(own + noise[1]):
        return (
            f"the raw rate {raw.estimate:.3f} is above the sensitivity {error.sensitivity:.3f} by more than noise: "
            "the card's error rates do not hold on this run"
        )
    return None
