"""Corrected and transported rates: by hand, against ppi-python (`make test-peers`), by simulation."""

from __future__ import annotations

import json
import math
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.peers import peer_python

from truing.stats.intervals import clopper_pearson
from truing.stats.judge_error import (
    JudgeErrorRates,
    corrected_difference,
    corrected_rate,
    ppi_mean,
    rogan_gladen,
    transported_rate,
)


def simulate_run(rng, n, rate, se, sp, labels):
    """Returns truth, verdicts, labels and label probabilities of n rows."""
    truth = rng.random(n) < rate
    judged = np.where(truth, rng.random(n) < se, rng.random(n) > sp).astype(float)
    known = np.zeros(n, bool)
    known[rng.choice(n, labels, replace=False)] = True
    return truth.astype(float), judged, np.where(known, truth, np.nan), np.full(n, labels / n)


def test_a_perfect_judge_gives_the_mean_over_all_rows():
    rng = np.random.default_rng(0)
    truth, judged, labels, q = simulate_run(rng, 2000, 0.3, 1.0, 1.0, 200)
    result = ppi_mean(judged, labels, q)
    assert result.tuning == pytest.approx(1.0)
    assert result.estimate == pytest.approx(truth.mean())
    assert result.error == pytest.approx(math.sqrt(0.21 / 2000), rel=0.05)


def test_a_useless_judge_costs_nothing():
    rng = np.random.default_rng(1)
    _, judged, labels, q = simulate_run(rng, 2000, 0.3, 0.5, 0.5, 200)
    result = ppi_mean(judged, labels, q)
    known = labels[~np.isnan(labels)]
    assert result.tuning < 0.2
    assert result.error == pytest.approx(
        math.sqrt(known.mean() * (1 - known.mean()) / 200), rel=0.06
    )


def test_ppi_by_hand():
    # Four rows, two labelled with probability 1/2: labels 1 and 0, judged 1 0 | 1 1. The mean of
    # the labels is 1/2; with tuning t the estimate is 1/2 + t (3/4 - 1/2).
    result = ppi_mean([1, 0, 1, 1], [1, 0, math.nan, math.nan], [0.5] * 4)
    # a = (1, -1, 0, 0); b = (1/4 - 1, -3/4 + 1, 1/4, 1/4): -(a.b)/(b.b) = 1 / 0.75, cut to 1.
    assert result.tuning == 1.0
    assert result.estimate == pytest.approx(0.75)
    assert result.labels == 2 and result.positives == 1


# Reads {"labels": ..., "judged": ..., "unlabelled": ...} and prints the estimate.
PPI_SCRIPT = """
import json, sys
import numpy as np
import ppi_py

case = {name: np.array(values, float) for name, values in json.load(sys.stdin).items()}
estimate = ppi_py.ppi_mean_pointestimate(case["labels"], case["judged"], case["unlabelled"])
print(float(np.ravel(estimate)[0]))
"""


@pytest.mark.peers
@pytest.mark.timeout(600)
def test_agrees_with_ppi_python():
    rng = np.random.default_rng(3)
    _, judged, labels, q = simulate_run(rng, 3000, 0.3, 0.9, 0.8, 600)
    known = ~np.isnan(labels)
    case = {
        "labels": labels[known].tolist(),
        "judged": judged[known].tolist(),
        "unlabelled": judged[~known].tolist(),
    }
    command = [peer_python("ppi"), "-W", "ignore", "-c", PPI_SCRIPT]
    done = subprocess.run(command, input=json.dumps(case), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert ppi_mean(judged, labels, q).estimate == pytest.approx(float(done.stdout), abs=2e-3)


def test_few_labels_of_a_kind_are_exact():
    judged = np.zeros(400)
    labels = np.full(400, np.nan)
    labels[:60] = 0
    labels[:3] = 1
    result = corrected_rate(judged, labels, np.full(400, 0.15))
    assert result == clopper_pearson(3, 60)


def test_few_weighted_labels_use_a_betting_interval():
    rng = np.random.default_rng(4)
    truth = rng.random(1000) < 0.02
    q = np.where(rng.random(1000) < 0.3, 0.4, 0.1)
    labels = np.where(rng.random(1000) < q, truth, np.nan)
    result = corrected_rate(truth.astype(float), labels, q)
    assert result.method == "betting on weighted labels"
    assert 0 <= result.lower <= 0.02 <= result.upper <= 1


def test_active_sampling_is_unbiased():
    rng = np.random.default_rng(5)
    estimates, covered = [], 0
    for _ in range(300):
        truth = rng.random(600) < 0.3
        score = np.clip(np.where(truth, 0.75, 0.25) + rng.normal(0, 0.25, 600), 0.01, 0.99)
        q = 0.05 + 0.4 * (1 - np.abs(2 * score - 1))
        labels = np.where(rng.random(600) < q, truth, np.nan)
        result = corrected_rate((score > 0.5).astype(float), labels, q)
        estimates.append(result.estimate)
        covered += result.lower <= 0.3 <= result.upper
    assert np.mean(estimates) == pytest.approx(0.3, abs=0.006)
    assert covered / 300 >= 0.92


def test_corrected_covers_where_raw_does_not():
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(400):
        _, judged, labels, q = simulate_run(rng, 800, 0.3, 0.92, 0.6, 150)
        result = corrected_rate(judged, labels, q)
        covered += result.lower <= 0.3 <= result.upper
        assert judged.mean() > 0.45  # the raw rate is far off
    assert covered / 400 >= 0.925


def test_clusters_widen():
    rng = np.random.default_rng(7)
    prompt = rng.random(200) < 0.3
    truth = np.repeat(prompt, 5).astype(float)
    known = rng.random(1000) < 0.4
    labels = np.where(known, truth, np.nan)
    clusters = np.repeat(np.arange(200), 5).tolist()
    plain, grouped = (
        corrected_rate(truth, labels, np.full(1000, 0.4), c) for c in (None, clusters)
    )
    assert grouped.width > 1.5 * plain.width


def test_differences_are_paired():
    rng = np.random.default_rng(8)
    _, ja, la, q = simulate_run(rng, 1000, 0.3, 0.9, 0.8, 200)
    a = ppi_mean(ja, la, q)
    same = corrected_difference(a, a)
    assert same.estimate == 0 and same.width == pytest.approx(0, abs=1e-12)
    _, jb, lb, q = simulate_run(rng, 1000, 0.2, 0.9, 0.8, 200)
    b = ppi_mean(jb, lb, q)
    assert corrected_difference(a, b).lower < -0.1 < corrected_difference(a, b).upper + 0.05
    with pytest.raises(ValueError, match="same prompts"):
        corrected_difference(
            a, ppi_mean(jb[:500], np.where(np.arange(500) < 50, 1.0, np.nan), q[:500])
        )


@pytest.mark.parametrize(
    ("judged", "labels", "q", "message"),
    [
        ([1.0], [math.nan], [0.5], "no labels"),
        ([math.nan], [1.0], [0.5], "not scored"),
        ([1.0], [1.0], [0.0], "probability"),
        ([1.0, 0.0], [1.0], [0.5], "shapes"),
        ([], [], [], "shapes"),
    ],
)
def test_invalid_input_is_refused(judged, labels, q, message):
    with pytest.raises(ValueError, match=message):
        corrected_rate(judged, labels, q)


def test_one_sample_and_no_variance():
    result = corrected_rate([1.0], [1.0], [1.0])
    assert result.estimate == 1.0 and result.lower == pytest.approx(0.025)
    result = corrected_rate(
        np.zeros(50), np.where(np.arange(50) < 30, 0.0, np.nan), np.full(50, 0.6)
    )
    assert result.estimate == 0 and result.upper > 0.1


def test_rogan_gladen_by_hand():
    assert rogan_gladen(0.3, 0.9, 0.8) == pytest.approx(1 / 7)


def test_a_rate_below_the_false_positives_is_refused():
    result = transported_rate(
        514, 1000, JudgeErrorRates(sensitivity=0.92, specificity=0.39, positives=100, negatives=100)
    )
    assert result.interval is None and result.band is None
    exact = transported_rate(514, 1000, JudgeErrorRates(sensitivity=0.92, specificity=0.39))
    assert exact.interval is None
    assert "below 1 - specificity" in exact.refused


def test_rates_above_the_sensitivity_and_judges_near_chance_are_refused():
    high = transported_rate(
        900, 1000, JudgeErrorRates(sensitivity=0.7, specificity=0.9, positives=500, negatives=500)
    )
    assert "above the sensitivity" in high.refused
    chance = transported_rate(
        50, 100, JudgeErrorRates(sensitivity=0.55, specificity=0.5, positives=50, negatives=50)
    )
    assert "chance" in chance.refused


def test_a_transported_rate_and_its_band():
    result = transported_rate(
        230, 1000, JudgeErrorRates(sensitivity=0.9, specificity=0.9, positives=300, negatives=300)
    )
    assert result.interval.estimate == pytest.approx((0.23 - 0.1) / 0.8)
    assert (
        result.band[0]
        <= result.interval.lower
        <= result.interval.estimate
        <= result.interval.upper
        <= result.band[1]
    )
    assert result.note == "assumes transport"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.data(), st.floats(0.6, 1), st.floats(0.6, 1))
def test_transported_holds_its_estimate(n, data, se, sp):
    k = data.draw(st.integers(0, n))
    result = transported_rate(
        k, n, JudgeErrorRates(sensitivity=se, specificity=sp, positives=50, negatives=50)
    )
    if result.interval is not None:
        i = result.interval
        assert 0 <= result.band[0] <= i.lower <= i.estimate <= i.upper <= result.band[1] <= 1


def test_transported_covers_when_transport_holds():
    rng = np.random.default_rng(9)
    covered = 0
    for _ in range(1500):
        q = 0.2 * 0.9 + 0.8 * 0.15
        k, se, sp = (
            rng.binomial(400, q),
            rng.binomial(100, 0.9) / 100,
            rng.binomial(100, 0.85) / 100,
        )
        result = transported_rate(
            k, 400, JudgeErrorRates(sensitivity=se, specificity=sp, positives=100, negatives=100)
        )
        covered += (
            result.interval is not None and result.interval.lower <= 0.2 <= result.interval.upper
        )
    assert covered / 1500 >= 0.93


def test_weights_are_rows_that_are_repeated():
    judged, labels = [1, 0, 1, 1], [1, 0, math.nan, math.nan]
    weighted = ppi_mean(judged, labels, [0.5] * 4, weights=[2, 1, 1, 1])
    repeated = ppi_mean([1, *judged], [1, *labels], [0.5] * 5, clusters=[0, 0, 1, 2, 3])
    assert weighted.estimate == pytest.approx(repeated.estimate)
    assert weighted.values == pytest.approx(repeated.values)
    even = ppi_mean(judged, labels, [0.5] * 4, weights=[3] * 4)
    assert even == ppi_mean(judged, labels, [0.5] * 4)


def test_corrected_rates_hold_however_often_one_looks_and_labels_more():
    """Whoever stops at the first look that excludes the truth does so in fewer than 5 %."""
    rng = np.random.default_rng(19)
    excluded = {False: 0, True: 0}
    for _ in range(60):
        truth = rng.random(3000) < 0.3
        judged = np.where(truth, rng.random(3000) < 0.8, rng.random(3000) < 0.1).astype(float)
        wrong = {False: False, True: False}
        for n in range(60, 1000, 60):  # the rows are in random order
            labels = np.where(np.arange(3000) < n, truth.astype(float), np.nan)
            for anytime in wrong:
                i = corrected_rate(judged, labels, np.full(3000, n / 3000), anytime=anytime)
                wrong[anytime] |= not i.lower <= 0.3 <= i.upper
        for anytime, is_wrong in wrong.items():
            excluded[anytime] += is_wrong
    assert excluded[True] <= 4  # 3 are allowed on average
    assert excluded[False] >= 5  # what a fixed number of labels would do


def test_few_labels_of_which_more_may_follow():
    judged, labels = np.zeros(200), np.full(200, np.nan)
    labels[:50] = 0.0
    labels[:2] = 1.0
    q = np.full(200, 0.25)
    fixed, anytime = (corrected_rate(judged, labels, q, anytime=a) for a in (False, True))
    assert anytime.method == "beta mixture, any time"
    assert anytime.lower < fixed.lower < fixed.estimate == anytime.estimate
    assert fixed.upper < anytime.upper < 0.25
    q[:10] = 0.5
    assert corrected_rate(judged, labels, q, anytime=True).width == 1.0


def test_an_anytime_difference_is_wider():
    rng = np.random.default_rng(2)
    parts = []
    for rate in (0.4, 0.2):
        truth = rng.random(800) < rate
        labels = np.where(np.arange(800) < 200, truth.astype(float), np.nan)
        parts.append(ppi_mean(truth.astype(float), labels, np.full(800, 0.25)))
    fixed, anytime = (corrected_difference(*parts, anytime=a) for a in (False, True))
    assert anytime.method == "ppi++ difference, any time"
    assert 1.4 < anytime.width / fixed.width < 1.8
