"""Agreement against sklearn, statsmodels, published and hand-computed values; Dawid-Skene.

`test_agreement_peer.py` compares Krippendorff's alpha with the krippendorff package.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters
from statsmodels.stats.inter_rater import fleiss_kappa as reference_fleiss

from truing.stats.agreement import (
    alpha_by_category,
    cohen_kappa,
    dawid_skene,
    fleiss_kappa,
    krippendorff_alpha,
    leave_one_out_alpha,
)
from truing.stats.agreement_intervals import BootstrapOptions

FAST = BootstrapOptions(draws=60)


def ratings(seed=0, raters=3, items=80, levels=5, noise=0.8):
    """Ratings of raters who see the truth with noise, [raters, items]."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, levels, items)
    return np.clip(np.rint(truth + rng.normal(0, noise, (raters, items))), 0, levels - 1)


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_cohen_equals_sklearn(weights):
    a, b = ratings(raters=2)
    expected = cohen_kappa_score(a, b, weights=None if weights == "none" else weights)
    kappa = cohen_kappa(a, b, weights=weights, options=FAST)
    assert kappa.estimate == pytest.approx(expected)
    assert kappa.lower <= kappa.estimate <= kappa.upper


def test_fleiss_equals_statsmodels():
    matrix = ratings(1)
    assert fleiss_kappa(matrix, options=FAST).estimate == pytest.approx(
        reference_fleiss(aggregate_raters(matrix.T.astype(int))[0])
    )


MEASUREMENTS = ("nominal", "ordinal", "interval", "ratio")
nan = np.nan


def alpha(matrix, measurement="nominal"):
    """Krippendorff's alpha with a single bootstrap replicate, which makes it fast."""
    return krippendorff_alpha(matrix, measurement, options=BootstrapOptions(draws=1)).estimate


def alpha_by_pairs(matrix, measurement):
    """Alpha by its definition, pair by pair, without a coincidence matrix."""
    units = [[v for v in column if not np.isnan(v)] for column in np.asarray(matrix, float).T]
    units = [u for u in units if len(u) >= 2]
    ratings = [v for u in units for v in u]

    def difference(c, k):
        if measurement == "nominal":
            return float(c != k)
        if measurement == "ordinal":
            low, high = min(c, k), max(c, k)
            between = sum(low <= v <= high for v in ratings)
            return 0.0 if c == k else (between - (ratings.count(c) + ratings.count(k)) / 2) ** 2
        if measurement == "interval":
            return (c - k) ** 2
        return ((c - k) / (c + k)) ** 2 if c != k else 0.0

    def over_pairs(values):
        return sum(
            difference(c, k) for i, c in enumerate(values) for j, k in enumerate(values) if i != j
        )

    observed = sum(over_pairs(u) / (len(u) - 1) for u in units) / len(ratings)
    expected = over_pairs(ratings) / (len(ratings) * (len(ratings) - 1))
    return 1 - observed / expected


# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": four observers, twelve units.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
        [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
    ]
)


@pytest.mark.parametrize(
    ("measurement", "published"),
    [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)],
)
def test_krippendorffs_own_example(measurement, published):
    assert alpha(PUBLISHED, measurement) == pytest.approx(published, abs=5e-4)
    assert alpha_by_pairs(PUBLISHED, measurement) == pytest.approx(published, abs=5e-4)


def test_krippendorffs_binary_example():
    # The same paper: two observers, ten units, two values. o01 = 4, n0 = 14, n1 = 6, so
    # alpha = 1 - 19 * 4 / (14 * 6).
    a = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    b = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert alpha([a, b]) == pytest.approx(1 - 19 * 4 / (14 * 6)) == pytest.approx(0.095, abs=5e-4)


def test_alpha_by_hand():
    # Items rated (1, 1), (1, 3), (3, 3, 1): n1 = 4, n3 = 3, n = 7; o13 = 1 + 2 / 2 = 2 each way.
    matrix = [[1, 1, 3], [1, 3, 3], [nan, nan, 1]]
    expected = 1 - 6 * 2 / (4 * 3)  # with two values every difference cancels
    assert [alpha(matrix, m) for m in MEASUREMENTS] == pytest.approx([expected] * 4)
    # Items rated (0, 0), (0, 2), (1, 2): n = (3, 1, 2); o02 = o12 = 1 each way, o01 = 0.
    matrix = [[0, 0, 1], [0, 2, 2]]
    assert alpha(matrix, "nominal") == pytest.approx(1 - 5 * 2 / (3 + 6 + 2))
    assert alpha(matrix, "interval") == pytest.approx(1 - 5 * (4 + 1) / (3 * 1 + 6 * 4 + 2 * 1))
    # mid-ranks 1.5, 3.5, 5; ratio: 0 differs wholly from all others, 1 from 2 by a third
    assert alpha(matrix, "ordinal") == pytest.approx(
        1 - 5 * (3.5**2 + 1.5**2) / (3 * 4 + 6 * 3.5**2 + 2 * 1.5**2)
    )
    assert alpha(matrix, "ratio") == pytest.approx(1 - 5 * (1 + 1 / 9) / (3 + 6 + 2 / 9))


def test_a_unit_with_one_rating_changes_nothing():
    lone = np.array([[9.0], [nan], [nan], [nan]])
    for measurement in MEASUREMENTS:
        assert alpha(np.hstack([PUBLISHED, lone]), measurement) == alpha(PUBLISHED, measurement)


@pytest.mark.parametrize("measurement", MEASUREMENTS)
@pytest.mark.parametrize(
    "matrix",
    [
        np.ones((2, 5)),  # a single value
        [[1, 1, nan], [1, 1, 3]],  # a single value among the items with two ratings
        [[1, nan, 2], [nan, 2, nan]],  # no item with two ratings
        np.full((3, 4), nan),
        np.ones((1, 4)),
        np.ones((0, 4)),
    ],
)
def test_alpha_is_undefined_without_variance_or_pairs(matrix, measurement):
    interval = krippendorff_alpha(matrix, measurement, options=FAST)
    assert np.isnan([interval.estimate, interval.lower, interval.upper]).all()


def test_alpha_refuses_invalid_ratings():
    with pytest.raises(ValueError, match="shape"):
        krippendorff_alpha([1, 2, 3])
    with pytest.raises(ValueError, match="infinite"):
        krippendorff_alpha([[1, np.inf], [1, 2]], "interval")
    with pytest.raises(ValueError, match="negative"):
        krippendorff_alpha([[1, -1], [1, 1]], "ratio")


matrices = arrays(
    float,
    array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=st.sampled_from([nan, 0.0, 1.0, 2.0, 3.0, 7.5]),
)
levels = st.sampled_from(MEASUREMENTS)


@settings(max_examples=80, deadline=None)
@given(matrices, levels)
def test_alpha_is_that_of_all_pairs(matrix, measurement):
    estimate = alpha(matrix, measurement)
    assume(not np.isnan(estimate))
    assert estimate == pytest.approx(alpha_by_pairs(matrix, measurement), abs=1e-9)
    assert estimate <= 1 + 1e-12


@settings(max_examples=60, deadline=None)
@given(matrices, levels, st.randoms(use_true_random=False))
def test_the_order_of_raters_and_items_does_not_matter(matrix, measurement, random):
    rows, columns = (random.sample(range(n), n) for n in matrix.shape)
    mixed = matrix[rows][:, columns]
    assert alpha(mixed, measurement) == pytest.approx(
        alpha(matrix, measurement), abs=1e-9, nan_ok=True
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=9), st.integers(2, 5), levels)
def test_perfect_agreement_is_one(truth, raters, measurement):
    assume(len(set(truth)) > 1)
    assert alpha([truth] * raters, measurement) == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(matrices, st.permutations([0.0, 1.0, 2.0, 3.0, 7.5]))
def test_nominal_alpha_ignores_which_value_is_which(matrix, names):
    relabelled = matrix.copy()
    for value, name in zip([0.0, 1.0, 2.0, 3.0, 7.5], names):
        relabelled[matrix == value] = name
    assert alpha(relabelled) == pytest.approx(alpha(matrix), abs=1e-9, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(matrices, st.floats(0.01, 100), st.booleans(), st.floats(-100, 100))
def test_alpha_under_a_change_of_scale(matrix, scale, negative, shift):
    changed = (-scale if negative else scale) * matrix + shift
    for measurement in ("interval", "ordinal"):  # a change of scale keeps or reverses the order
        expected = pytest.approx(alpha(matrix, measurement), abs=1e-6, nan_ok=True)
        assert alpha(changed, measurement) == expected
    expected = pytest.approx(alpha(matrix, "ratio"), abs=1e-6, nan_ok=True)
    assert alpha(scale * matrix, "ratio") == expected


def test_alphas_interval_holds_its_estimate():
    matrix = ratings(2, items=30)
    matrix[0, :8] = nan
    interval = krippendorff_alpha(matrix, "ordinal", options=FAST)
    assert interval.lower < interval.estimate < interval.upper
    assert interval.estimate == pytest.approx(alpha_by_pairs(matrix, "ordinal"))


def test_alpha_rises_without_a_rater_who_disagrees():
    matrix = ratings(3, noise=0.3)
    matrix[2] = np.random.default_rng(9).integers(0, 5, 80)
    without = leave_one_out_alpha(matrix, ["ann", "bo", "cy"], options=FAST)
    assert without["cy"].estimate > 0.6 > without["ann"].estimate
    parts = alpha_by_category(matrix[:2], ["a"] * 40 + ["b"] * 40, options=FAST)
    assert set(parts) == {"a", "b"}
    with pytest.raises(ValueError):
        leave_one_out_alpha(matrix, ["ann"], options=FAST)


def test_kappa_is_undefined_without_variance():
    assert np.isnan(cohen_kappa([1, 1, 1], [1, 1, 1], options=FAST).estimate)


def test_dawid_skene_finds_the_raters():
    rng = np.random.default_rng(4)
    truth = rng.random(1500) < 0.3
    se, sp = [0.95, 0.8, 0.6, 0.9], [0.9, 0.95, 0.7, 0.6]
    ratings_by_rater = [
        np.where(truth, rng.random(1500) < a, rng.random(1500) > b) for a, b in zip(se, sp)
    ]
    matrix = np.stack(ratings_by_rater).astype(float)
    matrix[3, :700] = np.nan
    result = dawid_skene(matrix)
    assert result.sensitivity == pytest.approx(se, abs=0.07)
    assert result.specificity == pytest.approx(sp, abs=0.05)
    assert result.prevalence == pytest.approx(0.3, abs=0.04)
    consensus, majority = np.array(result.probability) > 0.5, np.nanmean(matrix, 0) > 0.5
    assert (consensus == truth).mean() > (majority == truth).mean()


def test_dawid_skene_needs_a_rating_of_every_item():
    with pytest.raises(ValueError, match="without any rating"):
        dawid_skene(np.full((2, 2), np.nan))
