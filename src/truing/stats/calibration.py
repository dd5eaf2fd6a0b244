"""Calibration of probabilities: reliability, ECE, Brier score, recalibration, selective accuracy.

Everywhere `p` holds stated probabilities of shape [n] and `y` the outcomes, 0 or 1, of the same
shape. Both are checked: ValueError for other shapes, NaN, or probabilities outside [0, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from truing.stats.intervals import Interval, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


def _check_probabilities(
    p: ArrayLike, y: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    import numpy as np

    p, y = np.asarray(p, float), np.asarray(y, float)
    if p.shape != y.shape or p.ndim != 1 or not len(p):
        raise ValueError(f"probabilities and outcomes of shapes {p.shape} and {y.shape}")
    if np.isnan(p).any() or np.isnan(y).any() or p.min() < 0 or p.max() > 1:
        raise ValueError("probabilities must lie in [0, 1] and hold no NaN")
    return p, y


class ReliabilityBin(Struct, frozen=True):
    """One bin of a reliability diagram: mean probability, observed rate, number of rows."""

    confidence: float
    rate: Interval
    n: int


def reliability_bins(
    p: ArrayLike, y: ArrayLike, *, bins: int = 10, equal_mass: bool = False
) -> list[ReliabilityBin]:
    """Returns the observed rate against the stated probability (Murphy & Winkler 1977).

    Bins have equal width, or with `equal_mass` about equal numbers of rows. Empty bins are left
    out.
    """
    import numpy as np

    p, y = _check_probabilities(p, y)
    quantiles = np.linspace(0, 1, bins + 1)
    edges = (np.quantile(p, quantiles) if equal_mass else quantiles)[1:-1]
    bin_of_row = np.searchsorted(edges, p, side="right")
    diagram = []
    for k in range(bins):
        inside = bin_of_row == k
        n = int(inside.sum())
        if n:
            rate = wilson(float(y[inside].sum()), n)
            diagram.append(ReliabilityBin(float(p[inside].mean()), rate, n))
    return diagram


def ece(p: ArrayLike, y: ArrayLike, *, bins: int = 15) -> float:
    """Returns the expected calibration error with bins of equal width.

    This is the mean of |confidence - rate| over the bins, weighted by their rows (Naeini et al.
    2015; Guo et al. 2017, arXiv 1706.04599).
    """
    diagram = reliability_bins(p, y, bins=bins)
    n = sum(b.n for b in diagram)
    return sum(b.n * abs(b.confidence - b.rate.estimate) for b in diagram) / n


def brier_score(p: ArrayLike, y: ArrayLike) -> float:
    """Returns the mean squared error of the probability (Brier 1950, Mon. Weather Rev. 78:1)."""
    p, y = _check_probabilities(p, y)
    return float(((p - y) ** 2).mean())


def _logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    clipped = np.clip(p, 1e-7, 1 - 1e-7)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def fit_temperature(p: ArrayLike, y: ArrayLike) -> float:
    """Returns the T that minimises the log loss of sigmoid(logit(p) / T).

    Temperature scaling of Guo et al. 2017 (arXiv 1706.04599).
    """
    import numpy as np
    from scipy.optimize import minimize_scalar

    p, y = _check_probabilities(p, y)
    z = _logit(p)

    def log_loss(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature)
        # -log sigmoid(s) = log(1 + e^-s), without overflow for large |s|.
        return float((np.logaddexp(0, scaled) - y * scaled).mean())

    return float(np.exp(minimize_scalar(log_loss, bounds=(-4, 4), method="bounded").x))


def apply_temperature(p: ArrayLike, t: float) -> NDArray[np.float64]:
    """Returns sigmoid(logit(p) / t). Raises ValueError unless t > 0."""
    import numpy as np

    if not t > 0:
        raise ValueError(f"temperature {t!r} is not positive")
    return np.asarray(1 / (1 + np.exp(-_logit(np.asarray(p, float)) / t)))


class LogitCalibration(Struct, frozen=True):
    """Maps a probability p to sigmoid(slope logit(p) + intercept); the order of rows stays."""

    slope: float
    intercept: float

    def __call__(self, p: ArrayLike) -> NDArray[np.float64]:
        """Maps probabilities of any shape."""
        import numpy as np

        z = self.slope * _logit(np.asarray(p, float)) + self.intercept
        return np.asarray(1 / (1 + np.exp(-np.clip(z, -60, 60))))


def fit_platt(p: ArrayLike, y: ArrayLike) -> LogitCalibration:
    """Returns the slope and intercept of Platt 1999, on the logits of stated probabilities.

    The targets are Platt's, (n+ + 1) / (n+ + 2) and 1 / (n- + 2), which keep the fit finite where
    the classes are separable. Raises ValueError unless both classes occur, and if higher
    probabilities go with fewer outcomes: no increasing map mends that.
    """
    import numpy as np
    from scipy.optimize import minimize

    p, y = _check_probabilities(p, y)
    n_positive, n_negative = float(y.sum()), float((1 - y).sum())
    if not n_positive or not n_negative:
        raise ValueError("a calibration needs rows of both classes")
    z = _logit(p)
    target = np.where(y > 0, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))

    def log_loss(parameters: NDArray[np.float64]) -> float:
        s = parameters[0] * z + parameters[1]
        return float((np.logaddexp(0, s) - target * s).mean())

    prior = np.log((n_positive + 1) / (n_negative + 1))
    slope, intercept = minimize(log_loss, np.array([1.0, prior]), method="BFGS").x
    if not slope > 0 or not np.isfinite(slope + intercept):
        raise ValueError("higher probabilities do not go with more outcomes")
    return LogitCalibration(float(slope), float(intercept))


class IsotonicMap(Struct, frozen=True):
    """A non-decreasing map of probabilities: linear between its knots, constant outside them."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, p: ArrayLike) -> NDArray[np.float64]:
        """Maps probabilities of any shape."""
        import numpy as np

        return np.asarray(np.interp(np.asarray(p, float), self.x, self.y))


def fit_isotonic(p: ArrayLike, y: ArrayLike) -> IsotonicMap:
    """Returns the non-decreasing map of least squares (Zadrozny & Elkan 2002).

    Fitted by scipy's pool-adjacent-violators algorithm.
    """
    import numpy as np
    from scipy.optimize import isotonic_regression

    p, y = _check_probabilities(p, y)
    # Ties have to be averaged first: isotonic_regression takes the rows in the order given.
    knots, knot_of_row, counts = np.unique(p, return_inverse=True, return_counts=True)
    means = np.bincount(knot_of_row, y) / counts
    fitted = isotonic_regression(means, weights=counts).x
    return IsotonicMap(tuple(map(float, knots)), tuple(map(float, fitted)))


class SelectiveAccuracy(Struct, frozen=True):
    """Accuracy on the most confident share (`coverage`) of the rows."""

    coverage: float
    accuracy: Interval


def selective_accuracy(
    confidence: ArrayLike, correct: ArrayLike, *, steps: int = 10
) -> list[SelectiveAccuracy]:
    """Returns the risk-coverage curve (El-Yaniv & Wiener 2010, JMLR 11:1605).

    One point for the most confident 1/steps of the rows, one for 2/steps, and so on to all rows.
    """
    import numpy as np

    confidence, correct = _check_probabilities(confidence, correct)
    order = np.argsort(-confidence, kind="stable")
    curve = []
    for k in range(1, steps + 1):
        n = max(1, round(len(order) * k / steps))
        accuracy = wilson(float(correct[order[:n]].sum()), n)
        curve.append(SelectiveAccuracy(n / len(order), accuracy))
    return curve
