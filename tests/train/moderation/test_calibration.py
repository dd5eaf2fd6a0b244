"""Mixing weights and thresholds against scikit-learn, brute force and hand-computed values."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from truing.train.moderation.calibration import (
    Calibration,
    LogitMix,
    OutOfFoldLogits,
    best_f1_threshold,
    cross_fit,
    false_alarm_threshold,
    fit_calibration,
    fit_category_thresholds,
    fit_logistic_regression,
    fit_logit_mix,
)


def test_logistic_regression_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=(400, 2)), np.ones(400)])
    y = (rng.random(400) < 1 / (1 + np.exp(-(x @ [1.5, -0.5, 0.3])))).astype(float)
    ours = fit_logistic_regression(x, y, ridge=1e-3)
    theirs = LogisticRegression(C=1 / (1e-3 * 400), tol=1e-9).fit(x[:, :2], y)
    assert ours == pytest.approx([*theirs.coef_[0], theirs.intercept_[0]], abs=1e-4)


def test_the_best_f1_is_that_of_all_thresholds() -> None:
    rng = np.random.default_rng(1)
    p, y = rng.random(200).round(2), (rng.random(200) < 0.3).astype(float)
    threshold, f1 = best_f1_threshold(p, y)
    best = max(f1_score(y, p >= t) for t in np.unique(p))
    assert f1 == pytest.approx(best) == pytest.approx(f1_score(y, p >= threshold))


def test_the_best_f1_by_hand() -> None:
    # Two positives; "p >= 0.6" finds both with one false alarm, F1 = 2 * 2 / (3 + 2).
    threshold, f1 = best_f1_threshold(np.array([0.9, 0.7, 0.6, 0.2]), np.array([1.0, 0, 1, 0]))
    assert f1 == pytest.approx(0.8) and threshold == pytest.approx(0.4)
    assert best_f1_threshold(np.array([0.9, 0.1]), np.zeros(2)) == (0.5, 0.0)


def test_rare_categories_take_the_common_threshold() -> None:
    rng = np.random.default_rng(2)
    y = np.zeros((1000, 3))
    y[:400, 0], y[:2, 1] = 1, 1
    p = np.clip(0.3 * y + 0.6 * rng.random(y.shape), 0, 1)
    thresholds = fit_category_thresholds(p, y)
    common, _ = best_f1_threshold(p.ravel(), y.ravel())
    assert thresholds[2] == pytest.approx(common)  # a category without positives
    assert abs(thresholds[1] - common) < 0.05
    y[:, 2] = np.nan
    assert np.isfinite(fit_category_thresholds(p, y)).all()


def random_evidence(n: int, outputs: int, *, seed: int) -> OutOfFoldLogits:
    """Returns logits that know nothing of the random labels of `harmful`."""
    rng = np.random.default_rng(seed)
    targets = np.full((n, outputs), np.nan)
    targets[:, 0] = rng.integers(0, 2, n)
    logits = rng.normal(size=(2, n, outputs))
    return OutOfFoldLogits(logits[0], logits[1], targets, np.arange(n) % 3)


def test_noise_stays_noise_under_cross_fitting() -> None:
    evidence = random_evidence(900, 5, seed=3)
    evidence.targets[:, 3:] = np.random.default_rng(4).integers(0, 2, (900, 2))
    p, verdicts = cross_fit(evidence, np.ones(900, bool), np.zeros(900, bool))
    # Fitted on the rows that they are measured on, the weights would find some order in the noise.
    auroc = [
        roc_auc_score(evidence.targets[evidence.folds == fold, 0], p[evidence.folds == fold, 0])
        for fold in range(3)
    ]
    assert float(np.mean(auroc)) == pytest.approx(0.5, abs=0.05)
    assert verdicts.shape == evidence.targets.shape


def test_labels_of_a_fold_do_not_change_its_own_probabilities() -> None:
    evidence = random_evidence(90, 4, seed=4)
    is_home, is_prompt = np.ones(90, bool), np.zeros(90, bool)
    before, _ = cross_fit(evidence, is_home, is_prompt)
    targets = evidence.targets.copy()
    in_fold = evidence.folds == 0
    targets[in_fold, 0] = 1 - targets[in_fold, 0]
    inverted = OutOfFoldLogits(evidence.encoder, evidence.ngrams, targets, evidence.folds)
    after, _ = cross_fit(inverted, is_home, is_prompt)
    assert np.array_equal(before[in_fold], after[in_fold])
    assert not np.array_equal(before[evidence.folds == 1], after[evidence.folds == 1])


def test_the_mix_by_hand() -> None:
    mix = LogitMix(
        a=np.array([2.0, 1, 1, 3, 4]),
        b=np.array([0.5, 0, 0, 1, 1]),
        gate=np.array([0.1, 0.2]),
        bias=np.array([1.0, 0, 0, -1, -2]),
    )
    encoder, ngrams = np.array([[1.0, 5, 6, 2, 3]]), np.array([[2.0, 9, 9, 1, 0]])
    expected = [2 + 1 + 1, 5, 6, 6 + 1 - 1 + 0.1, 12 + 0 - 2 + 0.2]
    assert mix.apply(encoder, ngrams)[0].tolist() == pytest.approx(expected)


def test_an_output_without_labels_keeps_the_encoders_logits() -> None:
    mix = fit_logit_mix(random_evidence(60, 4, seed=5))
    assert (mix.a[1], mix.b[1], mix.bias[1]) == (1.0, 0.0, 0.0)
    assert (mix.a[3], mix.b[3], mix.gate[0]) == (1.0, 0.0, 0.0)


def test_a_mix_on_all_rows_is_scaled_to_the_home_rows() -> None:
    rng = np.random.default_rng(6)
    n = 3000
    targets = np.full((n, 4), np.nan)
    targets[:, 0] = rng.integers(0, 2, n)
    logits = (2 * targets[:, :1] - 1) + rng.normal(size=(n, 4))
    is_home = np.arange(n) < 1000
    logits[~is_home] *= 3  # the same order, another scale
    evidence = OutOfFoldLogits(logits, np.zeros((n, 4)), targets, np.arange(n) % 3)
    calibration = fit_calibration(evidence, is_home, np.zeros(n, bool), mix_on_all_rows=True)
    expected = fit_logit_mix(evidence.only(is_home))
    assert calibration.mix.a[0] == pytest.approx(expected.a[0], rel=0.02)


def test_thresholds_are_in_the_order_of_the_outputs() -> None:
    nothing = np.zeros(0)
    mix = LogitMix(nothing, nothing, nothing, nothing)
    calibration = Calibration(mix, 0.1, 0.2, 0.3, np.array([0.4, 0.5]))
    assert calibration.thresholds.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5]


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.7, 0.9]), st.booleans()), min_size=1),
    st.floats(0, 0.9),
)
def test_a_threshold_by_false_alarms_is_the_lowest_allowed(
    rows: list[tuple[float, bool]], share: float
) -> None:
    p = np.array([score for score, _ in rows])
    y = np.array([float(label) for _, label in rows])
    threshold = false_alarm_threshold(p, y, share)
    negatives = p[y == 0]
    assert (negatives >= threshold).sum() <= share * len(negatives)
    for lower in {s for s in negatives.tolist() if s < threshold}:
        assert (negatives >= lower).sum() > share * len(negatives)


def test_each_set_has_the_same_part_in_the_probabilities() -> None:
    rng = np.random.default_rng(7)
    n, n_large = 1200, 1000
    sets = (np.arange(n) >= n_large).astype(np.int64)
    is_prompt = np.arange(n) % 3 == 0
    targets = np.full((n, 4), np.nan)
    share = np.where(sets == 0, 0.2, 0.7)
    targets[:, 0] = np.where(is_prompt, np.nan, rng.random(n) < share)
    targets[:, 1] = np.where(is_prompt, rng.random(n) < share, np.nan)
    logits = np.nan_to_num(targets, nan=0.5) * 2 + rng.normal(size=targets.shape)
    evidence = OutOfFoldLogits(logits, np.zeros_like(logits), targets, np.arange(n) % 3, sets)
    calibration = fit_calibration(evidence, sets == 0, is_prompt)
    p = 1 / (1 + np.exp(-calibration.mix.apply(evidence.encoder, evidence.ngrams)))
    for k, rows in ((0, ~is_prompt), (1, is_prompt)):
        # A logistic fit with an intercept is right on average; here on the average of both sets.
        excess = [(p - targets)[rows & (sets == number), k].mean() for number in (0, 1)]
        assert excess[0] > 0.01 and sum(excess) == pytest.approx(0, abs=1e-3)
        home = fit_calibration(msgspec.structs.replace(evidence, sets=None), sets == 0, is_prompt)
        assert home.mix.bias[k] != pytest.approx(calibration.mix.bias[k])


def test_a_set_with_one_label_calibrates_nothing() -> None:
    evidence = random_evidence(300, 5, seed=8)
    evidence.targets[:100, 0] = 1
    rows = np.ones(300, bool)
    numbers = np.where(np.arange(300) < 100, 1, 0)
    both = msgspec.structs.replace(evidence, sets=numbers)
    without = msgspec.structs.replace(evidence.without(numbers == 1), sets=numbers[100:])
    calibrations = (
        fit_calibration(both, numbers == 0, ~rows),
        fit_calibration(without, rows[100:], ~rows[100:]),
    )
    ours, theirs = (c.mix.apply(evidence.encoder, evidence.ngrams)[:, 0] for c in calibrations)
    assert ours == pytest.approx(theirs, abs=1e-3)
