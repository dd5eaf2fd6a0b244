"""Sample sizes: the planned n does what it promises, and known values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from truing.stats.intervals import exact_upper_bound, wilson
from truing.stats.paired import mcnemar_exact
from truing.stats.planning import (
    design_effect,
    detectable_difference,
    n_for_betting_sequence,
    n_for_non_inferiority,
    n_for_upper_bound,
    n_for_width,
    n_pairs_for_mcnemar,
)


@pytest.mark.parametrize(("rate", "width"), [(0.1, 0.05), (0.5, 0.1), (0.0, 0.02)])
def test_the_least_n_for_a_width(rate, width):
    n = n_for_width(rate, width)
    assert wilson(rate * n, n).width <= width < wilson(rate * (n - 1), n - 1).width


def test_the_power_of_an_upper_bound():
    n = n_for_upper_bound(0.005, 0.02, power=0.8)
    most_events = max(k for k in range(n) if exact_upper_bound(k, n) < 0.02)
    assert binom.cdf(most_events, n, 0.005) >= 0.8
    assert n_for_upper_bound(0.0, 0.05) == 59


def test_pairs_reach_their_power():
    n = n_pairs_for_mcnemar(0.15, 0.05)
    rng = np.random.default_rng(0)
    significant = [
        mcnemar_exact(*map(int, rng.multinomial(n, [0.15, 0.05, 0.8])[:2])) < 0.05
        for _ in range(1500)
    ]
    assert np.mean(significant) == pytest.approx(
        0.8, abs=0.06
    )  # the exact test is a little cautious


def test_known_values():
    assert design_effect(5, 0.5) == 3.0
    assert n_for_non_inferiority(0.1, 0.05) == 314
    assert detectable_difference(785, 0.2) == pytest.approx(0.0447, abs=1e-3)
    assert n_for_betting_sequence(0.1, 0.15) > n_for_width(0.1, 0.15)


def test_impossible_plans_are_refused():
    with pytest.raises(ValueError, match="the expected rate must lie below the limit"):
        n_for_upper_bound(0.1, 0.05)
    with pytest.raises(ValueError, match="the shares that change must differ"):
        n_pairs_for_mcnemar(0.1, 0.1)
    with pytest.raises(ValueError, match="width lies between 0 and 1"):
        n_for_width(0.1, 2.0)
