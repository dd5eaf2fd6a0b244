"""Conformal thresholds and Learn then Test: textbook numbers, and guarantees in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from truing.stats.conformal import (
    anytime_p_value,
    binomial_p_value,
    conformal_threshold,
    hoeffding_bentkus_p_value,
    labels_needed,
    learn_then_test,
)


def test_conformal_rank_by_hand():
    assert conformal_threshold(range(1, 20), 0.1) == 18  # ceil(20 * 0.9) = 18th of 19
    assert conformal_threshold([1, 2, 3], 0.1) == math.inf
    with pytest.raises(ValueError, match="NaN"):
        conformal_threshold([1, math.nan], 0.1)


def test_conformal_covers():
    rng = np.random.default_rng(0)
    exceeds = [rng.normal() > conformal_threshold(rng.normal(size=60), 0.1) for _ in range(3000)]
    assert np.mean(exceeds) <= 0.115


def test_binomial_p_equals_scipy():
    assert binomial_p_value(2, 100, 0.05) == pytest.approx(binom.cdf(2, 100, 0.05))
    assert binomial_p_value(0, 0, 0.05) == 1.0


@pytest.mark.parametrize(
    ("alpha", "events", "n"), [(0.05, 0, 59), (0.05, 1, 93), (0.01, 0, 299), (0.02, 0, 149)]
)
def test_labels_needed(alpha, events, n):
    assert labels_needed(alpha, events=events) == n
    assert binom.cdf(events, n, alpha) <= 0.05 < binom.cdf(events, n - 1, alpha)


def test_fixed_sequence_stops_at_the_first_failure():
    tested = learn_then_test([0.1, 0.2, 0.3, 0.4], [0, 0, 9, 0], [59, 80, 100, 500], 0.05)
    assert [t.certified for t in tested] == [True, True, False, False]
    with pytest.raises(ValueError):
        learn_then_test([0.1], [0], [10], 1.5)


def test_learn_then_test_keeps_its_guarantee():
    rng = np.random.default_rng(1)
    false_certificates = 0
    rates = [0.01, 0.04, 0.06, 0.1]  # true rates; at alpha 5 % the third is too high
    for _ in range(2000):
        events = [int(rng.binomial(300, rate)) for rate in rates]
        tested = learn_then_test([1, 2, 3, 4], events, [300] * 4, 0.05)
        false_certificates += tested[2].certified
    assert false_certificates / 2000 <= 0.055


def test_hoeffding_bentkus_is_a_p_value():
    rng = np.random.default_rng(2)
    p = [
        hoeffding_bentkus_p_value(float(rng.binomial(200, 0.1)) / 200, 200, 0.1)
        for _ in range(2000)
    ]
    assert np.mean(np.asarray(p) <= 0.05) <= 0.05
    assert hoeffding_bentkus_p_value(0.2, 100, 0.1) == 1.0
    assert hoeffding_bentkus_p_value(0.0, 100, 0.1) < 0.001


def test_anytime_p_by_hand():
    assert anytime_p_value(0, 68, 0.05) <= 0.05 < anytime_p_value(0, 67, 0.05)
    assert anytime_p_value(0, 0, 0.05) == 1.0 and anytime_p_value(30, 100, 0.05) == 1.0


def test_anytime_p_is_valid_under_repeated_looks():
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(400):
        events = np.cumsum(rng.random(400) < 0.05)
        rejected += any(
            anytime_p_value(int(events[n - 1]), n, 0.05) <= 0.05 for n in range(20, 401, 20)
        )
    assert rejected / 400 <= 0.05
    with pytest.raises(ValueError):
        anytime_p_value(3, 2, 0.05)
