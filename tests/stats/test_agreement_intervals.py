"""Intervals of agreement: coverage in small simulations, perfect agreement, few items."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from tests.stats.test_agreement import MEASUREMENTS, levels, matrices

from truing.stats.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha
from truing.stats.agreement_intervals import BootstrapOptions

OPTIONS = BootstrapOptions(draws=400)


def copied_ratings(rng, alpha, n_items, raters, share=0.5):
    """Raters who all copy one value with probability alpha, and guess apart otherwise."""
    ratings = (rng.random((raters, n_items)) < share).astype(float)
    copied = rng.random(n_items) < alpha
    ratings[:, copied] = ratings[0, copied]
    return ratings


@pytest.mark.parametrize("n_items", [10, 20, 50, 200])
@pytest.mark.parametrize("alpha", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("raters", [2, 3])
def test_alphas_interval_covers(n_items, alpha, raters):
    rng = np.random.default_rng(20261129)
    intervals = [
        krippendorff_alpha(copied_ratings(rng, alpha, n_items, raters), options=OPTIONS)
        for _ in range(120)
    ]
    defined = [i for i in intervals if not np.isnan(i.estimate)]
    missed = sum(not i.lower <= alpha <= i.upper for i in defined)
    # Of 120 intervals with 6 % error, more than 15 miss with probability below 0.5 %.
    assert len(defined) >= 110
    assert missed <= 15


@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_perfect_agreement_on_twenty_items_is_not_certain(measurement):
    truth = [1, 2] * 10
    interval = krippendorff_alpha([truth, truth, truth], measurement, options=OPTIONS)
    assert interval.estimate == interval.upper == pytest.approx(1)
    # As for 0 of 20: up to 12 % of the items may be such that the raters differ (Jeffreys).
    most = beta.ppf(0.975, 0.5, 20)
    assert interval.lower == pytest.approx(1 - 2 * most, abs=0.06)
    assert interval.method == f"krippendorff alpha, {measurement}, only 20 items"


def test_many_items_are_not_called_few():
    truth = [0, 1] * 40
    assert krippendorff_alpha([truth, truth]).method == "krippendorff alpha, nominal"


def test_every_coefficient_of_two_raters_and_two_values_has_nearly_the_same_interval():
    rng = np.random.default_rng(3)
    ratings = copied_ratings(rng, 0.6, 400, 2)
    of_alpha = krippendorff_alpha(ratings)
    for other in (cohen_kappa(*ratings), fleiss_kappa(ratings)):
        assert other.lower == pytest.approx(of_alpha.lower, abs=0.02)
        assert other.upper == pytest.approx(of_alpha.upper, abs=0.02)


@pytest.mark.parametrize("coefficient", [lambda m: cohen_kappa(*m), fleiss_kappa])
def test_perfect_kappa_is_not_certain_either(coefficient):
    truth = [0.0, 1.0] * 10
    interval = coefficient(np.array([truth, truth]))
    assert interval.estimate == 1
    assert 0.6 < interval.lower < 0.85


@settings(max_examples=40, deadline=None)
@given(matrices, levels)
def test_the_interval_holds_the_estimate_and_has_a_width(matrix, measurement):
    interval = krippendorff_alpha(matrix, measurement, options=BootstrapOptions(draws=50))
    assume(not np.isnan(interval.estimate))
    assert interval.lower <= interval.estimate <= interval.upper <= 1 + 1e-9
    assert interval.upper - interval.lower > 0.01


@settings(max_examples=20, deadline=None)
@given(matrices, st.sampled_from(["nominal", "ordinal", "interval"]))
def test_the_order_of_the_items_does_not_matter(matrix, measurement):
    options = BootstrapOptions(draws=50)
    forwards = krippendorff_alpha(matrix, measurement, options=options)
    backwards = krippendorff_alpha(matrix[:, ::-1], measurement, options=options)
    assert backwards.lower == pytest.approx(forwards.lower, abs=1e-9, nan_ok=True)
    assert backwards.upper == pytest.approx(forwards.upper, abs=1e-9, nan_ok=True)


def test_draws_are_the_same_in_chunks(monkeypatch):
    ratings = np.random.default_rng(1).normal(size=(2, 40))
    assert krippendorff_alpha(ratings, "interval").lower < 0.2
    monkeypatch.setattr("truing.stats.agreement_intervals._MOST_WEIGHTS", 1000)
    in_chunks = krippendorff_alpha(ratings, "interval")
    assert in_chunks.lower == pytest.approx(krippendorff_alpha(ratings, "interval").lower)
    assert in_chunks.lower < in_chunks.estimate < in_chunks.upper


def test_kappa_over_prompts_is_wider_than_over_answers():
    rng = np.random.default_rng(5)
    a, b = copied_ratings(rng, 0.6, 50, 2)
    by_prompt = np.repeat(np.arange(50), 6)
    a, b = np.repeat(a, 6), np.repeat(b, 6)
    over_answers, over_prompts = cohen_kappa(a, b), cohen_kappa(a, b, by_prompt)
    assert over_prompts.estimate == pytest.approx(over_answers.estimate)
    assert over_prompts.width > 2 * over_answers.width
    once = cohen_kappa(a[::6], b[::6])
    assert over_prompts.lower == pytest.approx(once.lower, abs=1e-9)
