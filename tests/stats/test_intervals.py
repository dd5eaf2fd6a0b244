"""Intervals against statsmodels, by hand, by simulation, and for properties of any data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from truing.stats.intervals import (
    clopper_pearson,
    cluster_bootstrap,
    clustered_wilson,
    exact_upper_bound,
    macro_average,
    normal_quantile,
    student_quantile,
    unscored_bounds,
    wilson,
)

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (7, 30), (30, 30), (514, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_and_exact_equal_statsmodels(k, n, level):
    assert wilson(k, n, level).lower == pytest.approx(
        proportion_confint(k, n, 1 - level, "wilson")[0], abs=1e-12
    )
    assert wilson(k, n, level).upper == pytest.approx(
        proportion_confint(k, n, 1 - level, "wilson")[1], abs=1e-12
    )
    exact = proportion_confint(k, n, 1 - level, "beta")
    assert clopper_pearson(k, n, level).lower == pytest.approx(0 if k == 0 else exact[0], abs=1e-9)
    assert clopper_pearson(k, n, level).upper == pytest.approx(1 if k == n else exact[1], abs=1e-9)


def test_zero_of_fifty_nine_certifies_five_percent():
    assert exact_upper_bound(0, 59) < 0.05 < exact_upper_bound(0, 58)


@given(counts, st.sampled_from([0.8, 0.95, 0.999]))
def test_intervals_hold_their_estimate_and_stay_in_the_unit(pair, level):
    k, n = pair
    for interval in (wilson(k, n, level), clopper_pearson(k, n, level)):
        assert 0 <= interval.lower <= interval.estimate <= interval.upper <= 1


@given(st.integers(2, 200), st.data())
def test_bounds_rise_with_the_events(n, data):
    k = data.draw(st.integers(0, n - 1))
    for method in (wilson, clopper_pearson):
        assert method(k, n).lower <= method(k + 1, n).lower + 1e-12
        assert method(k, n).upper <= method(k + 1, n).upper + 1e-12


@pytest.mark.parametrize(
    ("k", "n"), [(1, 0), (-1, 5), (6, 5), (float("nan"), 5), (0, float("nan"))]
)
def test_impossible_counts_are_refused(k, n):
    with pytest.raises(ValueError, match="no rate"):
        wilson(k, n)


def test_quantiles_equal_scipy():
    from scipy.stats import norm, t

    assert normal_quantile(0.95) == pytest.approx(norm.ppf(0.975))
    for freedom in (1, 3, 8, 20, 300):
        assert student_quantile(0.95, freedom) == pytest.approx(t.ppf(0.975, freedom), rel=2e-5)
        assert student_quantile(0.99, freedom) == pytest.approx(t.ppf(0.995, freedom), rel=2e-4)
    with pytest.raises(ValueError, match="level"):
        normal_quantile(1.0)


def test_clustered_by_hand():
    # Four prompts of two answers: events 2, 0, 1, 1; p = 1/2, residuals 1, -1, 0, 0. The
    # variance is 2 * 4/3 / 64 = 1/24, the binomial one 1/32: design effect 4/3, effective n = 6.
    interval = clustered_wilson([2, 0, 1, 1], [2, 2, 2, 2])
    t = student_quantile(0.95, 3)
    centre, half = 0.5, t / (1 + t * t / 6) * math.sqrt(0.25 / 6 + t * t / (4 * 36))
    assert (interval.lower, interval.upper) == pytest.approx((centre - half, centre + half))


def test_one_row_a_cluster_is_plain_wilson_and_times_repeat():
    plain = clustered_wilson([1, 0, 0, 1], [1, 1, 1, 1])
    assert (plain.lower, plain.upper) == (wilson(2, 4).lower, wilson(2, 4).upper)
    assert clustered_wilson([2, 0, 1, 1], [2] * 4) == clustered_wilson(
        [2, 0, 1], [2] * 3, times=[1, 1, 2]
    )
    assert (
        clustered_wilson([0] * 30, [5] * 30).upper > wilson(0, 150).upper
    )  # no variance is no proof of independence


@given(
    st.lists(
        st.integers(1, 6).flatmap(lambda m: st.tuples(st.integers(0, m), st.just(m))),
        min_size=1,
        max_size=40,
    )
)
def test_clustered_holds_its_estimate(rows):
    interval = clustered_wilson([e for e, _ in rows], [m for _, m in rows])
    assert 0 <= interval.lower <= interval.estimate <= interval.upper <= 1


def test_cluster_bootstrap_is_seeded_and_near_the_robust_interval():
    rng = np.random.default_rng(1)
    p = rng.beta(2, 6, 120)
    e = rng.binomial(4, p)
    first, again = cluster_bootstrap(e, [4] * 120, seed=3), cluster_bootstrap(e, [4] * 120, seed=3)
    assert first == again
    robust = clustered_wilson(e.tolist(), [4] * 120)
    assert first.lower == pytest.approx(robust.lower, abs=0.012)
    assert first.upper == pytest.approx(robust.upper, abs=0.012)


def test_macro_average_by_hand():
    interval = macro_average([wilson(5, 20), wilson(10, 20)])
    a = wilson(5, 20)
    assert interval.estimate == 0.375
    # Variances 0.25 * 0.75 / 19 and 0.25 / 19, over 4: that of 42.9 independent rows at a rate
    # of 0.375.
    pooled = wilson(0.375 * (n := 0.375 * 0.625 / ((0.1875 + 0.25) / 19 / 4)), n)
    assert (interval.lower, interval.upper) == pytest.approx((pooled.lower, pooled.upper), abs=1e-6)
    assert macro_average([a]) == a
    no_events = macro_average([wilson(0, 20), wilson(0, 20)])
    assert no_events.upper == pytest.approx(wilson(0, 40).upper, abs=1e-6)
    with pytest.raises(ValueError, match="no categories"):
        macro_average([])


def test_unscored_bounds():
    assert unscored_bounds(2, 10, 3) == (0.2, 0.5)
    with pytest.raises(ValueError, match="impossible"):
        unscored_bounds(8, 10, 3)


@pytest.mark.parametrize(("p", "n"), [(0.05, 120), (0.3, 50), (0.5, 200)])
def test_wilson_covers(p, n):
    k = np.random.default_rng(0).binomial(n, p, 4000)
    table = [wilson(i, n) for i in range(n + 1)]
    covered = np.mean([table[i].lower <= p <= table[i].upper for i in k])
    assert 0.93 <= covered <= 0.975


@pytest.mark.parametrize(("answers", "clusters", "spread"), [(4, 40, 3.0), (8, 60, 1.0)])
def test_clustered_covers_where_plain_wilson_does_not(answers, clusters, spread):
    rng = np.random.default_rng(5)
    covered = naive_covered = 0
    for _ in range(600):
        e = rng.binomial(answers, rng.beta(0.2 * spread, 0.8 * spread, clusters))
        interval, naive = (
            clustered_wilson(e.tolist(), [answers] * clusters),
            wilson(e.sum(), answers * clusters),
        )
        covered += interval.lower <= 0.2 <= interval.upper
        naive_covered += naive.lower <= 0.2 <= naive.upper
    assert covered / 600 >= 0.925
    assert naive_covered / 600 < 0.88
