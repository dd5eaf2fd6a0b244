"""Statistics of alignment: curves against brute force, the KL bound, retained effects."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from truing.align.curve import best_of_curve, best_of_kl, retained_effect


def test_kl_bound() -> None:
    assert best_of_kl(1) == 0
    assert best_of_kl(16) == pytest.approx(math.log(16) - 15 / 16)
    with pytest.raises(ValueError, match="at least one"):
        best_of_kl(0)


def test_curve_is_the_mean_over_all_subsets() -> None:
    rng = random.Random(1)
    for _ in range(5):
        chosen = [[rng.choice([0.0, 0.5, 1.0, 2.0]) for _ in range(6)] for _ in range(3)]
        measured = [[rng.random() for _ in range(6)] for _ in range(3)]
        for n in (1, 2, 4, 6):
            means = []
            for utilities, scores in zip(chosen, measured):
                subset_scores = []
                for subset in itertools.combinations(range(6), n):
                    top = max(utilities[k] for k in subset)
                    best = [scores[k] for k in subset if utilities[k] == top]
                    subset_scores.append(sum(best) / len(best))
                means.append(sum(subset_scores) / len(subset_scores))
            assert best_of_curve(chosen, measured, [n])[0] == pytest.approx(sum(means) / 3)
    one_prompt = [[1.0, 2.0, 3.0]]
    assert best_of_curve(one_prompt, one_prompt, [1, 2, 3]) == pytest.approx([2.0, 8 / 3, 3.0])
    with pytest.raises(ValueError, match="between 1"):
        best_of_curve(one_prompt, one_prompt, [4])
    with pytest.raises(ValueError, match="same, non-zero number of prompts"):
        best_of_curve(one_prompt, [], [1])


def test_share_is_only_given_for_a_distinguishable_effect() -> None:
    rng = random.Random(0)
    base = [rng.random() for _ in range(200)]
    full = [b + 1 + 0.1 * rng.random() for b in base]
    half = [b + 0.5 for b in base]
    result = retained_effect(base, full, half)
    assert result.share == pytest.approx(0.5 / 1.05, abs=0.02)
    assert result.share_interval is not None
    assert result.share_interval[0] <= result.share <= result.share_interval[1]
    noise = retained_effect(base, [b + rng.choice([-1, 1]) for b in base], half)
    assert noise.share is None
