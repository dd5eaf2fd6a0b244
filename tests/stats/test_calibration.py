"""Calibration against sklearn and by construction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss

from truing.stats.calibration import (
    apply_temperature,
    brier_score,
    ece,
    fit_isotonic,
    fit_temperature,
    reliability_bins,
    selective_accuracy,
)


def sample(n=3000, sharpen=1.0, seed=0):
    """Probabilities and outcomes; calibrated, or overconfident by the factor `sharpen`."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 2, n)
    y = (rng.random(n) < p).astype(float)
    return apply_temperature(p, 1 / sharpen), y


def test_brier_equals_sklearn():
    p, y = sample()
    assert brier_score(p, y) == pytest.approx(brier_score_loss(y, p))


def test_ece_by_hand():
    # Two of ten bins: 0.25 four times with one event, 0.95 four times with two, so
    # |0.25 - 0.25| / 2 + |0.95 - 0.5| / 2.
    assert ece([0.25] * 4 + [0.95] * 4, [1, 0, 0, 0, 1, 1, 0, 0], bins=10) == pytest.approx(0.225)


def test_temperature_is_recovered():
    p, y = sample(20000, sharpen=2.5)
    t = fit_temperature(p, y)
    assert t == pytest.approx(2.5, rel=0.08)
    assert ece(apply_temperature(p, t), y) < 0.02 < ece(p, y)


def test_isotonic_equals_sklearn():
    p, y = sample(500)
    isotonic, reference = fit_isotonic(p, y), IsotonicRegression(out_of_bounds="clip").fit(p, y)
    grid = np.linspace(0, 1, 101)
    assert isotonic(grid) == pytest.approx(reference.predict(grid), abs=1e-9)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_isotonic_is_non_decreasing(rows):
    isotonic = fit_isotonic([p for p, _ in rows], [float(y) for _, y in rows])
    assert all(np.diff(isotonic(np.linspace(0, 1, 30))) >= -1e-12)


def test_reliability_bins_hold_all_rows():
    p, y = sample(1000)
    for equal_mass in (False, True):
        assert sum(b.n for b in reliability_bins(p, y, equal_mass=equal_mass)) == 1000
    assert max(b.n for b in reliability_bins(p, y, equal_mass=True)) <= 101


def test_selective_accuracy_by_hand():
    curve = selective_accuracy([0.9, 0.8, 0.3, 0.2], [1, 1, 0, 0], steps=2)
    assert [(point.coverage, point.accuracy.estimate) for point in curve] == [
        (0.5, 1.0),
        (1.0, 0.5),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.2], [1.0]), r"probabilities must lie in \[0, 1\] and hold no NaN"),
        (([float("nan")], [1.0]), r"probabilities must lie in \[0, 1\] and hold no NaN"),
        (([0.5], [1.0, 0.0]), r"probabilities and outcomes of shapes \(1,\) and \(2,\)"),
        (([], []), r"probabilities and outcomes of shapes \(0,\) and \(0,\)"),
    ],
)
def test_invalid_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ece(*arguments)
