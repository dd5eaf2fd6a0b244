"""Agreement against sklearn, statsmodels and the krippendorff package; Dawid-Skene on raters of known error."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters
from statsmodels.stats.inter_rater import fleiss_kappa as reference_fleiss

from truing.stats.agreement import (
    Options,
    alpha_by_category,
    alpha_without,
    cohen_kappa,
    dawid_skene,
    fleiss_kappa,
    krippendorff_alpha,
)

FAST = Options(draws=60)


def ratings(seed=0, raters=3, items=80, levels=5, noise=0.8):
    random = np.random.default_rng(seed)
    truth = random.integers(0, levels, items)
    return np.clip(np.rint(truth + random.normal(0, noise, (raters, items))), 0, levels - 1)


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_cohen_equals_sklearn(weights):
    a, b = ratings(raters=2)
    expected = cohen_kappa_score(a, b, weights=None if weights == "none" else weights)
    made = cohen_kappa(a, b, weights=weights, options=FAST)
    assert made.estimate == pytest.approx(expected)
    assert made.lower <= made.estimate <= made.upper


def test_fleiss_equals_statsmodels():
    matrix = ratings(1)
    assert fleiss_kappa(matrix, options=FAST).estimate == pytest.approx(
        reference_fleiss(aggregate_raters(matrix.T.astype(int))[0])
    )


@pytest.mark.parametrize("measurement", ["nominal", "ordinal", "interval"])
def test_alpha_equals_the_package_with_gaps(measurement):
    matrix = ratings(2)
    matrix[0, :20] = np.nan
    expected = krippendorff.alpha(reliability_data=matrix, level_of_measurement=measurement)
    assert krippendorff_alpha(matrix, measurement, options=FAST).estimate == pytest.approx(expected)


def test_krippendorffs_own_example():
    # Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", data C.
    nan = np.nan
    data = np.array([
        [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
        [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
    ])  # fmt: skip
    for measurement, alpha in (("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)):
        assert krippendorff_alpha(data, measurement, options=FAST).estimate == pytest.approx(alpha, abs=6e-4)


def test_the_rater_who_differs_is_seen():
    matrix = ratings(3, noise=0.3)
    matrix[2] = np.random.default_rng(9).integers(0, 5, 80)
    without = alpha_without(matrix, ["ann", "bo", "cy"], options=FAST)
    assert without["cy"].estimate > 0.6 > without["ann"].estimate
    parts = alpha_by_category(matrix[:2], ["a"] * 40 + ["b"] * 40, options=FAST)
    assert set(parts) == {"a", "b"}
    with pytest.raises(ValueError):
        alpha_without(matrix, ["ann"], options=FAST)


def test_no_variance_is_no_agreement_figure():
    assert np.isnan(cohen_kappa([1, 1, 1], [1, 1, 1], options=FAST).estimate)
    assert np.isnan(krippendorff_alpha(np.ones((2, 5)), options=FAST).estimate)


def test_dawid_skene_finds_the_raters():
    random = np.random.default_rng(4)
    truth = random.random(1500) < 0.3
    se, sp = [0.95, 0.8, 0.6, 0.9], [0.9, 0.95, 0.7, 0.6]
    said = [np.where(truth, random.random(1500) < a, random.random(1500) > b) for a, b in zip(se, sp)]
    matrix = np.stack(said).astype(float)
    matrix[3, :700] = np.nan
    made = dawid_skene(matrix)
    assert made.sensitivity == pytest.approx(se, abs=0.07)
    assert made.specificity == pytest.approx(sp, abs=0.05)
    assert made.prevalence == pytest.approx(0.3, abs=0.04)
    majority = np.nanmean(matrix, 0) > 0.5
    assert ((np.array(made.probability) > 0.5) == truth).mean() > (majority == truth).mean()
    with pytest.raises(ValueError, match="without any rating"):
        dawid_skene(np.full((2, 2), np.nan))
