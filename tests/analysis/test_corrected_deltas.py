"""Differences of two runs, corrected by labels of both."""

from __future__ import annotations

import numpy as np
from tests.analysis.test_corrections import label_by_truth

from truing.analysis.comparison import compare


def test_labels_show_what_a_lenient_judge_hides(make_run, prompts):
    rng = np.random.default_rng(5)
    n = 1500
    truths = [rng.random(n) < rate for rate in (0.5, 0.2)]
    runs = []
    for name, truth in zip("ab", truths):
        judged = np.where(truth, rng.random(n) < 0.7, rng.random(n) < 0.1)
        run = make_run(name, prompts(n), {"harmful": [[bool(j)] for j in judged]})
        label_by_truth(run, 250, truth)
        runs.append(run)
    delta = compare(*runs).find("harmful")
    true_difference = truths[1].mean() - truths[0].mean()
    assert delta.corrected.method == "ppi++ difference, any time"
    assert delta.corrected.lower < true_difference < delta.corrected.upper < 0
    assert delta.estimate > delta.corrected.estimate


def test_few_labels_give_a_wide_interval_and_labels_of_one_run_none(make_run, prompts):
    a = make_run("a", prompts(100), {"harmful": [[True]] * 50 + [[False]] * 50})
    b = make_run("b", prompts(100), {"harmful": [[False]] * 100})
    label_by_truth(a, 20, np.arange(100) < 50)
    assert compare(a, b).find("harmful").corrected is None
    label_by_truth(b, 20, np.zeros(100))
    corrected = compare(a, b).find("harmful").corrected
    assert corrected.method.startswith("square-and-add")
    assert -1 <= corrected.lower < corrected.estimate < corrected.upper <= 1


def test_labels_of_refusals_correct_the_change_in_answered_benign_prompts(make_run, prompts):
    rng = np.random.default_rng(4)
    runs, answered = [], []
    for name, refusal_rate in (("a", 0.3), ("b", 0.1)):
        refuses = rng.random(800) < refusal_rate
        judged = np.where(refuses, rng.random(800) < 0.8, rng.random(800) < 0.05)
        run = make_run(
            name, prompts(800, expect="comply"), {"refused": [[bool(j)] for j in judged]}
        )
        label_by_truth(run, 300, refuses, question="refused")
        runs.append(run)
        answered.append(1 - refuses.mean())
    delta = compare(*runs).find("answers_benign")
    true_difference = answered[1] - answered[0]
    assert delta.estimate < true_difference  # the judge misses a fifth of the refusals
    assert delta.corrected.lower < true_difference < delta.corrected.upper
