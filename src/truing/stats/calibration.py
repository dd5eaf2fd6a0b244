"""Is a probability a probability? Reliability, ECE, Brier; temperature and isotonic repair; selective accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from truing.stats.intervals import Interval, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


def _pairs(p: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    import numpy as np

    a, b = np.asarray(p, float), np.asarray(y, float)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"probabilities and outcomes of shapes {a.shape} and {b.shape}")
    if np.isnan(a).any() or np.isnan(b).any() or a.min() < 0 or a.max() > 1:
        raise ValueError("probabilities must lie in [0, 1] and hold no NaN")
    return a, b


class ReliabilityBin(Struct, frozen=True):
    """One bar of a reliability diagram."""

    confidence: float
    rate: Interval
    n: int


def reliability_bins(
    p: ArrayLike, y: ArrayLike, *, bins: int = 10, equal_mass: bool = False
) -> list[ReliabilityBin]:
    """Observed rate against stated probability, bin by bin (Murphy & Winkler 1977); empty bins are left out."""
    import numpy as np

    a, b = _pairs(p, y)
    if equal_mass:
        edges = np.quantile(a, np.linspace(0, 1, bins + 1))[1:-1]
    else:
        edges = np.linspace(0, 1, bins + 1)[1:-1]
    at = np.searchsorted(edges, a, side="right")
    out = []
    for k in range(bins):
        inside = at == k
        n = int(inside.sum())
        if n:
            out.append(
                ReliabilityBin(float(a[inside].mean()), wilson(float(b[inside].sum()), n), n)
            )
    return out


def ece(p: ArrayLike, y: ArrayLike, *, bins: int = 15) -> float:
    """Expected calibration error: mean gap of the bins, weighted (Naeini et al. 2015; Guo et al. 2017, 1706.04599)."""
    found = reliability_bins(p, y, bins=bins)
    total = sum(b.n for b in found)
    return sum(b.n * abs(b.confidence - b.rate.estimate) for b in found) / total


def brier_score(p: ArrayLike, y: ArrayLike) -> float:
    """Mean squared error of the probability (Brier 1950, Mon. Weather Rev. 78:1)."""
    a, b = _pairs(p, y)
    return float(((a - b) ** 2).mean())


def _logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    q = np.clip(p, 1e-7, 1 - 1e-7)
    return np.asarray(np.log(q) - np.log1p(-q))


def fit_temperature(p: ArrayLike, y: ArrayLike) -> float:
    """The T that minimises the log loss of sigmoid(logit(p) / T) (Guo et al. 2017, arXiv 1706.04599)."""
    import numpy as np
    from scipy.optimize import minimize_scalar

    a, b = _pairs(p, y)
    z = _logit(a)

    def loss(log_t: float) -> float:
        s = z / np.exp(log_t)
        return float((np.logaddexp(0, s) - b * s).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x))


def apply_temperature(p: ArrayLike, t: float) -> NDArray[np.float64]:
    """sigmoid(logit(p) / t)."""
    import numpy as np

    if not t > 0:
        raise ValueError(f"temperature {t!r} is not positive")
    return np.asarray(1 / (1 + np.exp(-_logit(np.asarray(p, float)) / t)))


class IsotonicMap(Struct, frozen=True):
    """A non-decreasing map of probabilities; flat outside, linear between its knots."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, p: ArrayLike) -> NDArray[np.float64]:
        """Maps probabilities."""
        import numpy as np

        return np.asarray(np.interp(np.asarray(p, float), self.x, self.y))


def fit_isotonic(p: ArrayLike, y: ArrayLike) -> IsotonicMap:
    """The non-decreasing map of least squares (Zadrozny & Elkan 2002; pool adjacent violators, scipy's)."""
    import numpy as np
    from scipy.optimize import isotonic_regression

    a, b = _pairs(p, y)
    values, at, counts = np.unique(a, return_inverse=True, return_counts=True)
    means = np.bincount(at, b) / counts
    fitted = isotonic_regression(means, weights=counts).x
    return IsotonicMap(tuple(map(float, values)), tuple(map(float, fitted)))


class SelectiveAccuracy(Struct, frozen=True):
    """Accuracy among the rows that a model is surest of."""

    coverage: float
    accuracy: Interval


def selective_accuracy(
    confidence: ArrayLike, correct: ArrayLike, *, steps: int = 10
) -> list[SelectiveAccuracy]:
    """Risk-coverage curve (El-Yaniv & Wiener 2010, JMLR 11:1605): accuracy of the surest 10 %, 20 %, ... 100 %."""
    import numpy as np

    a, b = _pairs(confidence, correct)
    order = np.argsort(-a, kind="stable")
    out = []
    for k in range(1, steps + 1):
        n = max(1, round(len(a) * k / steps))
        out.append(SelectiveAccuracy(n / len(a), wilson(float(b[order[:n]].sum()), n)))
    return out
