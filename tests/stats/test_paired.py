"""Paired comparison against scipy and statsmodels, by hand and by simulation."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from truing.stats.intervals import Interval
from truing.stats.paired import (
    PairedTable,
    benjamini_hochberg,
    holm,
    is_non_inferior,
    mcnemar_exact,
    newcombe_paired,
    paired_bootstrap,
    paired_mean,
    paired_permutation_test,
    permutation_test_from_counts,
)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 1), (30, 12), (400, 460)])
def test_mcnemar_equals_statsmodels(b, c):
    expected = mcnemar([[10, b], [c, 10]], exact=True).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-9)


def test_newcombes_published_example():
    # Newcombe 1998, table II (h): a, b, c, d = 36, 12, 2, 0; difference 0.2, method 10: 0.0569 to
    # 0.3404.
    interval = newcombe_paired(PairedTable(both=36, only_b=12, only_a=2, neither=0))
    assert interval.estimate == pytest.approx(0.2)
    assert (interval.lower, interval.upper) == pytest.approx((0.0569, 0.3404), abs=2e-3)


def test_table_counts():
    table = PairedTable.from_outcomes([True, True, False, False], [True, False, True, False])
    assert table == PairedTable(1, 1, 1, 1)
    assert table.difference == 0


p_values = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@settings(max_examples=40, deadline=None)
@given(p_values)
def test_adjustments_equal_statsmodels(p):
    # multipletests(method="holm") collects garbage at each call, which is slow in a large process.
    with patch("gc.collect"):
        expected = multipletests(p, method="holm")[1]
    assert holm(p) == pytest.approx(list(expected))
    assert benjamini_hochberg(p) == pytest.approx(list(multipletests(p, method="fdr_bh")[1]))


@given(p_values)
def test_adjusted_never_below_raw_and_monotone(p):
    for method in (holm, benjamini_hochberg):
        adjusted = method(p)
        assert all(a >= b - 1e-12 for a, b in zip(adjusted, p))
        order = np.argsort(p, kind="stable")
        assert all(np.diff(np.asarray(adjusted)[order]) >= -1e-12)


def test_resampling_is_near_the_closed_forms():
    a = np.array([1] * 30 + [0] * 90)
    b = np.array([0] * 22 + [1] * 8 + [1] * 6 + [0] * 84)
    table = PairedTable.from_outcomes(a.astype(bool), b.astype(bool))
    assert paired_permutation_test(a, b, draws=4999) == pytest.approx(
        mcnemar_exact(22, 6), abs=0.004
    )
    boot, exact = paired_bootstrap(a, b), newcombe_paired(table)
    assert boot.estimate == pytest.approx(exact.estimate)
    assert (boot.lower, boot.upper) == pytest.approx((exact.lower, exact.upper), abs=0.02)


def test_the_permutation_test_from_counts_agrees_with_the_plain_one():
    differences = np.array([0.5] * 12 + [-0.5] * 25 + [1.0] * 3 + [0.0] * 40)
    counts = {0.5: 12, -0.5: 25, 1.0: 3, 0.0: 40}
    plain = paired_permutation_test(np.zeros(80), differences)
    assert permutation_test_from_counts(counts) == pytest.approx(plain, abs=0.015)
    assert permutation_test_from_counts({0.0: 5}) == 1.0


def test_no_change_still_has_a_width():
    assert paired_permutation_test([1, 0], [1, 0]) == 1.0
    unchanged = newcombe_paired(PairedTable(both=5, only_a=0, only_b=0, neither=20))
    assert unchanged.lower < 0 < unchanged.upper
    same = paired_mean([0.5] * 20, [0.5] * 20)
    assert same.lower < 0 < same.upper


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [1.0, 0.0]), r"paired outcomes of shapes \(1,\) and \(2,\)"),
        (([float("nan")], [1.0]), "paired outcomes hold NaN"),
        (([], []), r"paired outcomes of shapes \(0,\) and \(0,\)"),
    ],
)
def test_invalid_pairs_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(*arguments)


def test_non_inferiority_is_decided_by_the_bound():
    assert is_non_inferior(Interval(-0.01, -0.04, 0.02), 0.05, higher_is_better=True)
    assert not is_non_inferior(Interval(-0.01, -0.06, 0.02), 0.05, higher_is_better=True)
    assert is_non_inferior(Interval(0.01, -0.02, 0.04), 0.05, higher_is_better=False)
    with pytest.raises(ValueError):
        is_non_inferior(Interval(0, -1, 1), -0.1, higher_is_better=True)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_newcombe_holds_its_estimate(rows):
    interval = newcombe_paired(
        PairedTable.from_outcomes([a for a, _ in rows], [b for _, b in rows])
    )
    assert -1 <= interval.lower <= interval.estimate <= interval.upper <= 1


def test_paired_intervals_cover():
    rng = np.random.default_rng(2)
    covered = clusters_covered = 0
    for _ in range(800):
        cell = rng.multinomial(80, [0.1, 0.15, 0.05, 0.7])
        interval = newcombe_paired(PairedTable(*map(int, cell)))
        covered += interval.lower <= -0.1 <= interval.upper
        p = rng.beta(1, 3, 60)
        a, b = rng.binomial(4, p) / 4, rng.binomial(4, np.clip(p * 0.6, 0, 1)) / 4
        interval = paired_mean(a.tolist(), b.tolist())
        clusters_covered += interval.lower <= -0.1 <= interval.upper
    assert 0.93 <= covered / 800 <= 0.985
    assert 0.93 <= clusters_covered / 800 <= 0.985
