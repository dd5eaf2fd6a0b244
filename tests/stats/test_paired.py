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
)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 1), (30, 12), (400, 460)])
def test_mcnemar_equals_statsmodels(b, c):
    expected = mcnemar([[10, b], [c, 10]], exact=True).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-9)


def test_newcombe_gives_the_published_example():
    # Newcombe 1998, table II (h): 36, 12, 2, 0 (a, b, c, d): difference 0.2, method 10: 0.0569 to 0.3404.
    made = newcombe_paired(PairedTable(both=36, only_b=12, only_a=2, neither=0))
    assert made.estimate == pytest.approx(0.2)
    assert (made.lower, made.upper) == pytest.approx((0.0569, 0.3404), abs=2e-3)


def test_table_counts():
    table = PairedTable.from_outcomes([True, True, False, False], [True, False, True, False])
    assert table == PairedTable(1, 1, 1, 1)
    assert table.difference == 0


p_values = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@settings(max_examples=40, deadline=None)
@given(p_values)
def test_adjustments_equal_statsmodels(p):
    with patch(
        "gc.collect"
    ):  # multipletests(method="holm") collects garbage at each call: slow in a large process
        expected = multipletests(p, method="holm")[1]
    assert holm(p) == pytest.approx(list(expected))
    assert benjamini_hochberg(p) == pytest.approx(list(multipletests(p, method="fdr_bh")[1]))


@given(p_values)
def test_adjusted_never_below_raw_and_monotone(p):
    for method in (holm, benjamini_hochberg):
        made = method(p)
        assert all(a >= b - 1e-12 for a, b in zip(made, p))
        order = np.argsort(p, kind="stable")
        assert all(np.diff(np.asarray(made)[order]) >= -1e-12)


def test_permutation_near_mcnemar_and_bootstrap_near_newcombe():
    a = np.array([1] * 30 + [0] * 90)
    b = np.array([0] * 22 + [1] * 8 + [1] * 6 + [0] * 84)
    table = PairedTable.from_outcomes(a.astype(bool), b.astype(bool))
    assert paired_permutation_test(a, b, draws=4999) == pytest.approx(
        mcnemar_exact(22, 6), abs=0.004
    )
    boot, exact = paired_bootstrap(a, b), newcombe_paired(table)
    assert boot.estimate == pytest.approx(exact.estimate)
    assert (boot.lower, boot.upper) == pytest.approx((exact.lower, exact.upper), abs=0.02)


def test_nothing_changed():
    assert paired_permutation_test([1, 0], [1, 0]) == 1.0
    made = newcombe_paired(PairedTable(both=5, only_a=0, only_b=0, neither=20))
    assert made.lower < 0 < made.upper
    same = paired_mean([0.5] * 20, [0.5] * 20)
    assert same.lower < 0 < same.upper


@pytest.mark.parametrize("bad", [([1.0], [1.0, 0.0]), ([float("nan")], [1.0]), ([], [])])
def test_bad_pairs(bad):
    with pytest.raises(ValueError):
        paired_bootstrap(*bad)


def test_non_inferiority_binds_on_the_bound():
    assert is_non_inferior(Interval(-0.01, -0.04, 0.02), 0.05, higher_is_better=True)
    assert not is_non_inferior(Interval(-0.01, -0.06, 0.02), 0.05, higher_is_better=True)
    assert is_non_inferior(Interval(0.01, -0.02, 0.04), 0.05, higher_is_better=False)
    with pytest.raises(ValueError):
        is_non_inferior(Interval(0, -1, 1), -0.1, higher_is_better=True)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_newcombe_holds_its_estimate(rows):
    made = newcombe_paired(PairedTable.from_outcomes([a for a, _ in rows], [b for _, b in rows]))
    assert -1 <= made.lower <= made.estimate <= made.upper <= 1


def test_paired_intervals_cover():
    random = np.random.default_rng(2)
    inside = clusters = 0
    for _ in range(800):
        cell = random.multinomial(80, [0.1, 0.15, 0.05, 0.7])
        made = newcombe_paired(PairedTable(*map(int, cell)))
        inside += made.lower <= -0.1 <= made.upper
        p = random.beta(1, 3, 60)
        a, b = random.binomial(4, p) / 4, random.binomial(4, np.clip(p * 0.6, 0, 1)) / 4
        made = paired_mean(a.tolist(), b.tolist())
        clusters += made.lower <= -0.1 <= made.upper
    assert 0.93 <= inside / 800 <= 0.985
    assert 0.93 <= clusters / 800 <= 0.985
