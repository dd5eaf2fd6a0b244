"""A card's figures against sklearn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import f1_score as reference_f1

from truing.stats.classification import (
    auroc,
    auroc_difference,
    average_precision,
    classification_scores,
    f1_score,
    pairwise_accuracy,
    recall_at_false_alarm,
    spearman_correlation,
)


def sample(n=400, seed=0, step=None):
    """Probabilities and labels; probabilities are rounded to `step`, which makes ties."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.3
    p = np.clip(np.where(y, 0.65, 0.35) + rng.normal(0, 0.2, n), 0, 1)
    return (np.round(p / step) * step if step else p), y


@pytest.mark.parametrize("step", [None, 0.1])
def test_equal_to_sklearn_with_and_without_ties(step):
    p, y = sample(step=step)
    assert auroc(p, y).estimate == pytest.approx(roc_auc_score(y, p))
    assert average_precision(p, y).estimate == pytest.approx(average_precision_score(y, p))
    assert f1_score(p > 0.5, y).estimate == pytest.approx(reference_f1(y, p > 0.5))


def test_delong_covers():
    rng = np.random.default_rng(1)
    truth = 0.760  # P(N(1, 1) > N(0, 1))
    covered = 0
    for _ in range(500):
        p = np.concatenate([rng.normal(1, 1, 40), rng.normal(0, 1, 80)])
        interval = auroc(p, np.arange(120) < 40)
        covered += interval.lower <= truth <= interval.upper
    assert covered / 500 >= 0.925


def test_a_single_class_has_no_curve():
    assert auroc([0.1, 0.2], [False, False]) is None
    assert average_precision([0.1, 0.2], [False, False]) is None
    scores = classification_scores([False, False], [False, False], [0.1, None], ["a", "b"])
    assert (scores.precision, scores.recall, scores.f1, scores.n_positive) == (None, None, None, 0)
    assert scores.specificity.estimate == 1.0


def test_perfect_separation_still_has_a_width():
    interval = auroc([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])
    assert interval.estimate == 1.0
    assert interval.lower < 0.9


def test_rows_of_one_prompt_are_drawn_together():
    p, y = sample(100)
    p, y, groups = np.repeat(p, 6), np.repeat(y, 6), np.repeat(np.arange(100), 6)
    assert f1_score(p > 0.5, y, groups).width > 1.6 * f1_score(p > 0.5, y).width


def clustered_rows(rng, n_clusters=80, answers=5):
    """Rows of a judge of sensitivity 0.8 and specificity 0.9 that errs by prompt, half the time."""
    y = rng.random(n_clusters) < 0.5
    by_prompt, rows = rng.random(n_clusters), rng.random((n_clusters, answers))
    # Correlation 1/2: an answer has the prompt's luck or its own.
    luck = np.where(rng.random((n_clusters, answers)) < 0.7, by_prompt[:, None], rows)
    verdicts = np.where(y[:, None], luck < 0.8, luck < 0.1)
    groups = np.repeat(np.arange(n_clusters), answers)
    return verdicts.ravel(), np.repeat(y, answers), groups


def test_scores_over_prompts_cover():
    rng = np.random.default_rng(7)
    truth = {"recall": 0.8, "specificity": 0.9, "f1": 2 * 0.8 / (1 + 0.8 + 0.1)}
    missed = dict.fromkeys(truth, 0)
    for _ in range(300):
        verdicts, y, groups = clustered_rows(rng)
        scores = classification_scores(verdicts, y, [None] * len(y), groups.tolist())
        for name, value in truth.items():
            interval = getattr(scores, name)
            missed[name] += not interval.lower <= value <= interval.upper
    # 15 of 300 are expected; intervals of independent rows miss 80 or more.
    assert max(missed.values()) <= 26, missed


def test_delong_over_prompts_covers():
    rng = np.random.default_rng(8)
    missed = 0
    for _ in range(300):
        y = np.arange(60) < 25
        p = np.repeat(rng.normal(y, 1), 4) + rng.normal(0, 0.3, 240)
        interval = auroc(p, np.repeat(y, 4), np.repeat(np.arange(60), 4))
        # P(N(1, 1.09) > N(0, 1.09)) = Phi(1 / sqrt(2.18))
        missed += not interval.lower <= 0.7509 <= interval.upper
    assert missed <= 26


def test_perfect_precision_recall_curves_have_a_width():
    interval = average_precision([0.1, 0.2, 0.8, 0.9, 0.9], [0, 0, 1, 1, 1], [0, 1, 2, 2, 3])
    assert interval.estimate == 1
    assert interval.lower == pytest.approx(0.342, abs=1e-3)  # Wilson, 2 of 2


def test_spearman_equals_scipy():
    rng = np.random.default_rng(2)
    x = rng.normal(size=80)
    y = np.round(x + rng.normal(size=80), 0)
    correlation = spearman_correlation(x, y)
    assert correlation.estimate == pytest.approx(spearmanr(x, y).statistic)
    assert correlation.lower < correlation.estimate < correlation.upper
    assert spearman_correlation([1, 1, 1, 1, 1, 1], range(6)) is None


def test_pairwise_accuracy_by_hand():
    # Right, wrong, and a tie.
    assert pairwise_accuracy([0.1, 0.5, 0.3], [0.2, 0.4, 0.3]).estimate == pytest.approx(0.5)
    assert pairwise_accuracy([], []) is None


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)), min_size=1, max_size=40))
def test_intervals_hold_their_estimates(rows):
    scores = classification_scores(
        [r[0] for r in rows],
        [r[1] for r in rows],
        [r[2] for r in rows],
        [str(i) for i in range(len(rows))],
    )
    names = ("precision", "recall", "specificity", "f1", "auroc", "ap")
    for i in (getattr(scores, name) for name in names):
        assert i is None or -1e-12 <= i.lower <= i.estimate <= i.upper <= 1 + 1e-12


def test_recall_at_a_rate_of_false_alarms_by_hand() -> None:
    # Negatives at .1 .2 ... 1.0 (ten of them), positives at .95 .85 .15: one false alarm of ten is
    # allowed at 10 %, so the threshold is the negative 1.0's next row down, .95.
    negatives = [k / 10 for k in range(1, 11)]
    p, y = [*negatives, 0.95, 0.85, 0.15], [False] * 10 + [True] * 3
    found = recall_at_false_alarm(p, y, rate=0.1)
    assert found is not None
    assert (found.threshold, found.false_alarm) == (0.95, pytest.approx(0.1))
    assert found.recall.estimate == pytest.approx(1 / 3)
    assert found.recall.lower <= 1 / 3 <= found.recall.upper
    # All negatives at the top score: no threshold keeps to the rate, and nothing is recalled.
    tied = recall_at_false_alarm([1.0] * 30, [False] * 20 + [True] * 10, rate=0.1)
    assert tied is not None and tied.recall.estimate == 0 and tied.threshold == float("inf")


def test_recall_needs_enough_negatives_and_a_positive() -> None:
    p = [0.1] * 9 + [0.9]
    assert recall_at_false_alarm(p, [False] * 9 + [True], rate=0.1) is None  # nine cannot say 10 %
    assert recall_at_false_alarm([0.1] * 10, [False] * 10, rate=0.1) is None
    with pytest.raises(ValueError, match="not between 0 and 1"):
        recall_at_false_alarm(p, [False] * 9 + [True], rate=1.0)


@pytest.mark.slow
def test_recall_at_false_alarm_over_prompts_covers() -> None:
    rng = np.random.default_rng(9)
    missed = 0
    for _ in range(120):
        y = np.arange(120) < 40
        p = np.repeat(rng.normal(1.5 * y, 1), 3) + rng.normal(0, 0.3, 360)
        found = recall_at_false_alarm(
            p, np.repeat(y, 3), np.repeat(np.arange(120), 3), rate=0.1, draws=200
        )
        # Scores are normal with variance 1.09: Phi((1.5 - 1.2816 s) / s), s = sqrt(1.09).
        missed += not found.recall.lower <= 0.5617 <= found.recall.upper
    assert missed <= 14, missed  # 6 of 120 are expected


def test_auroc_difference() -> None:
    rng = np.random.default_rng(3)
    y = np.arange(200) < 80
    good, bad = rng.normal(2.0 * y, 1), rng.normal(0.3 * y, 1)
    better = auroc_difference(bad, good, y)
    worse = auroc_difference(good, bad, y)
    assert better is not None and worse is not None
    expected = auroc(good, y).estimate - auroc(bad, y).estimate
    assert better.difference.estimate == pytest.approx(expected)
    assert better.difference.lower == pytest.approx(-worse.difference.upper)
    assert better.p == worse.p < 1e-4
    same = auroc_difference(good, good, y)
    assert (same.difference.estimate, same.p) == (0.0, 1.0)
    assert auroc_difference(good, bad, np.ones(200, bool)) is None
    few = [True, True, False, False]
    perfect = auroc_difference([0.5] * 4, [0.9, 0.8, 0.2, 0.1], few)
    assert perfect.difference.lower < 0.5 and perfect.p > 0.05  # two rows of a class show little
    with pytest.raises(ValueError, match="shapes"):
        auroc_difference(good, bad[:5], y)


def test_auroc_difference_keeps_its_level() -> None:
    rng = np.random.default_rng(4)
    rejected = 0
    for _ in range(300):
        y = np.repeat(np.arange(60) < 25, 3)
        common = np.repeat(rng.normal(np.arange(60) < 25, 1), 3)
        a, b = (common + rng.normal(0, 0.7, 180) for _ in range(2))
        rejected += auroc_difference(a, b, y, np.repeat(np.arange(60), 3)).p < 0.05
    assert rejected <= 26, rejected  # 15 of 300 are expected


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans()), min_size=4, max_size=40)
)
def test_recall_and_paired_areas_hold_their_estimates(rows) -> None:
    a, b, y = ([row[k] for row in rows] for k in range(3))
    found = recall_at_false_alarm(a, y, rate=0.5, draws=20)
    if found is not None:
        assert 0 <= found.recall.lower <= found.recall.estimate <= found.recall.upper <= 1
        assert found.false_alarm <= 0.5
        flagged = [score >= found.threshold for score in a]
        hits = sum(f and t for f, t in zip(flagged, y))
        assert found.recall.estimate == pytest.approx(hits / sum(y))
    pair = auroc_difference(a, b, y)
    if pair is not None:
        assert -1 <= pair.difference.lower <= pair.difference.estimate <= pair.difference.upper <= 1
        assert 0 <= pair.p <= 1
