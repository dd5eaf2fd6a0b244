"""Corrected and transported rates: by hand, against ppi-python where it is installed, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.stats.intervals import clopper_pearson
from truing.stats.judge_error import (
    JudgeErrorRates,
    corrected_difference,
    corrected_rate,
    ppi_mean,
    rogan_gladen,
    transported_rate,
)


def arm(random, n, rate, se, sp, labels):
    truth = random.random(n) < rate
    judged = np.where(truth, random.random(n) < se, random.random(n) > sp).astype(float)
    known = np.zeros(n, bool)
    known[random.choice(n, labels, replace=False)] = True
    return truth.astype(float), judged, np.where(known, truth, np.nan), np.full(n, labels / n)


def test_a_perfect_judge_leaves_nothing_to_the_labels():
    random = np.random.default_rng(0)
    truth, judged, labels, q = arm(random, 2000, 0.3, 1.0, 1.0, 200)
    made = ppi_mean(judged, labels, q)
    assert made.tuning == pytest.approx(1.0)
    assert made.estimate == pytest.approx(truth.mean())
    assert made.error == pytest.approx(math.sqrt(0.21 / 2000), rel=0.05)


def test_a_useless_judge_costs_nothing():
    random = np.random.default_rng(1)
    _, judged, labels, q = arm(random, 2000, 0.3, 0.5, 0.5, 200)
    made = ppi_mean(judged, labels, q)
    known = labels[~np.isnan(labels)]
    assert made.tuning < 0.2
    assert made.error == pytest.approx(math.sqrt(known.mean() * (1 - known.mean()) / 200), rel=0.06)


def test_hand_computed():
    # Four rows, two labelled with probability 1/2: labels 1 and 0, judged 1 0 | 1 1. Hajek mean of labels 1/2; with
    # tuning t the estimate is 1/2 + t (3/4 - 1/2).
    made = ppi_mean([1, 0, 1, 1], [1, 0, math.nan, math.nan], [0.5] * 4)
    # a = (1, -1, 0, 0); b = (1/4 - 1, -3/4 + 1, 1/4, 1/4): -(a.b)/(b.b) = 1 / 0.75, cut to 1.
    assert made.tuning == 1.0
    assert made.estimate == pytest.approx(0.75)
    assert made.labels == 2 and made.positives == 1


def test_agrees_with_ppi_python():
    ppi = pytest.importorskip("ppi_py")
    random = np.random.default_rng(3)
    _, judged, labels, q = arm(random, 3000, 0.3, 0.9, 0.8, 600)
    known = ~np.isnan(labels)
    theirs = ppi.ppi_mean_pointestimate(labels[known], judged[known], judged[~known])
    assert ppi_mean(judged, labels, q).estimate == pytest.approx(
        float(np.ravel(theirs)[0]), abs=2e-3
    )
    low, high = ppi.ppi_mean_ci(labels[known], judged[known], judged[~known], alpha=0.05)
    ours = corrected_rate(judged, labels, q)
    assert ours.lower == pytest.approx(float(np.ravel(low)[0]), abs=4e-3)
    assert ours.upper == pytest.approx(float(np.ravel(high)[0]), abs=4e-3)


def test_few_labels_of_a_kind_are_exact():
    judged = np.zeros(400)
    labels = np.full(400, np.nan)
    labels[:60] = 0
    labels[:3] = 1
    made = corrected_rate(judged, labels, np.full(400, 0.15))
    assert made == clopper_pearson(3, 60)


def test_few_weighted_labels_are_bet_on_and_hold_the_truth():
    random = np.random.default_rng(4)
    truth = random.random(1000) < 0.02
    q = np.where(random.random(1000) < 0.3, 0.4, 0.1)
    labels = np.where(random.random(1000) < q, truth, np.nan)
    made = corrected_rate(truth.astype(float), labels, q)
    assert made.method == "betting on weighted labels"
    assert 0 <= made.lower <= 0.02 <= made.upper <= 1


def test_active_sampling_is_unbiased():
    random = np.random.default_rng(5)
    got, inside = [], 0
    for _ in range(300):
        truth = random.random(600) < 0.3
        score = np.clip(np.where(truth, 0.75, 0.25) + random.normal(0, 0.25, 600), 0.01, 0.99)
        q = 0.05 + 0.4 * (1 - np.abs(2 * score - 1))
        labels = np.where(random.random(600) < q, truth, np.nan)
        made = corrected_rate((score > 0.5).astype(float), labels, q)
        got.append(made.estimate)
        inside += made.lower <= 0.3 <= made.upper
    assert np.mean(got) == pytest.approx(0.3, abs=0.006)
    assert inside / 300 >= 0.92


def test_corrected_covers_where_raw_does_not():
    random = np.random.default_rng(6)
    inside = 0
    for _ in range(400):
        _, judged, labels, q = arm(random, 800, 0.3, 0.92, 0.6, 150)
        made = corrected_rate(judged, labels, q)
        inside += made.lower <= 0.3 <= made.upper
        assert judged.mean() > 0.45  # the raw rate is far off
    assert inside / 400 >= 0.925


def test_clusters_widen():
    random = np.random.default_rng(7)
    prompt = random.random(200) < 0.3
    truth = np.repeat(prompt, 5).astype(float)
    known = random.random(1000) < 0.4
    labels = np.where(known, truth, np.nan)
    clusters = np.repeat(np.arange(200), 5).tolist()
    plain, grouped = (
        corrected_rate(truth, labels, np.full(1000, 0.4), c) for c in (None, clusters)
    )
    assert grouped.width > 1.5 * plain.width


def test_difference_of_arms_is_paired():
    random = np.random.default_rng(8)
    _, ja, la, q = arm(random, 1000, 0.3, 0.9, 0.8, 200)
    a = ppi_mean(ja, la, q)
    same = corrected_difference(a, a)
    assert same.estimate == 0 and same.width == pytest.approx(0, abs=1e-12)
    _, jb, lb, q = arm(random, 1000, 0.2, 0.9, 0.8, 200)
    b = ppi_mean(jb, lb, q)
    assert corrected_difference(a, b).lower < -0.1 < corrected_difference(a, b).upper + 0.05
    with pytest.raises(ValueError, match="same prompts"):
        corrected_difference(
            a, ppi_mean(jb[:500], np.where(np.arange(500) < 50, 1.0, np.nan), q[:500])
        )


@pytest.mark.parametrize(
    ("judged", "labels", "q", "word"),
    [
        ([1.0], [math.nan], [0.5], "no labels"),
        ([math.nan], [1.0], [0.5], "not scored"),
        ([1.0], [1.0], [0.0], "probability"),
        ([1.0, 0.0], [1.0], [0.5], "shapes"),
        ([], [], [], "shapes"),
    ],
)
def test_bad_input(judged, labels, q, word):
    with pytest.raises(ValueError, match=word):
        corrected_rate(judged, labels, q)


def test_one_sample_and_no_variance():
    made = corrected_rate([1.0], [1.0], [1.0])
    assert made.estimate == 1.0 and made.lower == pytest.approx(0.025)
    made = corrected_rate(np.zeros(50), np.where(np.arange(50) < 30, 0.0, np.nan), np.full(50, 0.6))
    assert made.estimate == 0 and made.upper > 0.1


def test_rogan_gladen_by_hand():
    assert rogan_gladen(0.3, 0.9, 0.8) == pytest.approx(1 / 7)


def test_garaks_case_is_refused_not_clipped():
    made = transported_rate(
        514, 1000, JudgeErrorRates(sensitivity=0.92, specificity=0.39, positives=100, negatives=100)
    )
    assert made.interval is None and made.band is None
    firm = transported_rate(514, 1000, JudgeErrorRates(sensitivity=0.92, specificity=0.39))
    assert firm.interval is None and "below 1 - specificity" in firm.refused


def test_above_sensitivity_and_chance_are_refused():
    high = transported_rate(
        900, 1000, JudgeErrorRates(sensitivity=0.7, specificity=0.9, positives=500, negatives=500)
    )
    assert "above the sensitivity" in high.refused
    chance = transported_rate(
        50, 100, JudgeErrorRates(sensitivity=0.55, specificity=0.5, positives=50, negatives=50)
    )
    assert "chance" in chance.refused


def test_within_noise_it_is_given_with_its_band():
    made = transported_rate(
        230, 1000, JudgeErrorRates(sensitivity=0.9, specificity=0.9, positives=300, negatives=300)
    )
    assert made.interval.estimate == pytest.approx((0.23 - 0.1) / 0.8)
    assert (
        made.band[0]
        <= made.interval.lower
        <= made.interval.estimate
        <= made.interval.upper
        <= made.band[1]
    )
    assert made.note == "assumes transport"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.data(), st.floats(0.6, 1), st.floats(0.6, 1))
def test_transported_holds_its_estimate(n, data, se, sp):
    k = data.draw(st.integers(0, n))
    made = transported_rate(
        k, n, JudgeErrorRates(sensitivity=se, specificity=sp, positives=50, negatives=50)
    )
    if made.interval is not None:
        i = made.interval
        assert 0 <= made.band[0] <= i.lower <= i.estimate <= i.upper <= made.band[1] <= 1


def test_transported_covers_when_transport_holds():
    random = np.random.default_rng(9)
    inside = 0
    for _ in range(1500):
        q = 0.2 * 0.9 + 0.8 * 0.15
        k, se, sp = (
            random.binomial(400, q),
            random.binomial(100, 0.9) / 100,
            random.binomial(100, 0.85) / 100,
        )
        made = transported_rate(
            k, 400, JudgeErrorRates(sensitivity=se, specificity=sp, positives=100, negatives=100)
        )
        inside += made.interval is not None and made.interval.lower <= 0.2 <= made.interval.upper
    assert inside / 1500 >= 0.93
