"""Partial pooling by hand, against scipy, and in simulations with known rates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from truing.stats.intervals import wilson
from truing.stats.pooling import (
    BetaMixture,
    change_interval,
    partial_pooling,
    partial_pooling_of_changes,
)


def single(a: float, b: float) -> BetaMixture:
    return BetaMixture(np.array([a], float), np.array([b], float), np.ones(1))


def test_one_prior_by_hand():
    # Beta(1, 3) and 2 of 6 give Beta(3, 7): mean 3 / 10, quantiles from tables.
    interval = single(1, 3).updated(2, 6).interval(0.95)
    assert interval.estimate == pytest.approx(0.3)
    assert (interval.lower, interval.upper) == pytest.approx((0.0749, 0.6001), abs=1e-3)


@pytest.mark.parametrize(("a", "b"), [(0.01, 4), (0.5, 0.5), (3, 7), (90, 110), (40, 0.2)])
def test_the_distribution_equals_scipy(a, b):
    rates, below = single(a, b).distribution()
    assert below == pytest.approx(beta.cdf(rates, a, b), abs=1e-3)


def test_a_change_equals_a_simulation():
    random = np.random.default_rng(0)
    s, r = random.beta(3, 7, 400_000), random.beta(2, 5, 400_000)
    interval = change_interval(single(3, 7), single(2, 5))
    assert interval.estimate == pytest.approx(0.3 * (2 * 2 / 7 - 1))
    drawn = np.quantile(s * (2 * r - 1), [0.025, 0.975])
    assert (interval.lower, interval.upper) == pytest.approx(tuple(drawn), abs=3e-3)


def test_changes_are_drawn_to_the_common_change():
    # 40 of 100 prompts fell in two large categories; 1 of 6 rose in a small one.
    pooled = partial_pooling_of_changes([40, 40, 0], [0, 0, 1], [100, 100, 6])
    assert pooled[0].estimate == pytest.approx(-0.4, abs=0.02)
    assert -0.4 < pooled[2].estimate < 1 / 6
    assert pooled[2].lower < 0
    with pytest.raises(ValueError, match="no rate"):
        partial_pooling_of_changes([3], [1], [2])


def test_pooled_rates_cover_and_err_less_than_shares():
    random = np.random.default_rng(11)
    covered, squared_errors = [], {"pooled": 0.0, "share": 0.0}
    for _ in range(20):
        rates = random.beta(0.2 * 8, 0.8 * 8, 14)
        sizes = random.integers(3, 30, 14)
        events = random.binomial(sizes, rates)
        for rate, k, n, i in zip(rates, events, sizes, partial_pooling(events, sizes)):
            covered.append(i.lower <= rate <= i.upper)
            squared_errors["pooled"] += (i.estimate - rate) ** 2
            squared_errors["share"] += (k / n - rate) ** 2
    assert 0.92 <= np.mean(covered) <= 0.98
    assert squared_errors["pooled"] < 0.7 * squared_errors["share"]


def test_pooled_changes_cover():
    random = np.random.default_rng(12)
    covered = []
    for _ in range(15):
        changed, rise = random.beta(3, 7, 14), random.beta(2, 6, 14)
        sizes = random.integers(3, 30, 14)
        n_changed = random.binomial(sizes, changed)
        rose = random.binomial(n_changed, rise)
        intervals = partial_pooling_of_changes(n_changed - rose, rose, sizes)
        truth = changed * (2 * rise - 1)
        covered += [i.lower <= t <= i.upper for i, t in zip(intervals, truth)]
    assert np.mean(covered) >= 0.9  # of 210 intervals; 94.8 % of 1,400


def test_partial_pooling_draws_small_categories_to_the_others():
    intervals = partial_pooling([1, 30, 28, 33, 31], [2, 100, 100, 100, 100])
    assert intervals[0].estimate < 0.4  # alone it would be 0.5
    assert intervals[1].estimate == pytest.approx(0.3, abs=0.02)
    assert intervals[1].width < wilson(30, 100).width  # it borrows strength from the others
    empty = partial_pooling([0, 0], [0, 20])
    assert 0 <= empty[0].lower <= empty[0].estimate <= empty[0].upper <= 1
    with pytest.raises(ValueError, match="no rate"):
        partial_pooling([3], [2])


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.integers(0, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
        min_size=1,
        max_size=8,
    )
)
def test_partial_pooling_holds_its_estimate(rows):
    for interval in partial_pooling([k for k, _ in rows], [n for _, n in rows]):
        assert 0 <= interval.lower <= interval.estimate <= interval.upper <= 1
