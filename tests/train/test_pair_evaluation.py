"""The evaluation of reward and cost models against hand-computed numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from tests.train.builders import make_example, make_settings, make_training_set

from truing.train.pair_evaluation import Proportion, evaluate_pairs, wilson_proportion
from truing.train.supervised import train_supervised


def test_a_reward_model_by_hand() -> None:
    answers_and_harms = [
        (("long answer", "short"), ("x",)),
        (("aa", "bb"), ("x", "y")),
        (("s", "longer one"), ("y",)),
        (("abcd", "ab"), ()),
    ]
    items = [
        make_example(k, answers=answers, harms=harms)
        for k, (answers, harms) in enumerate(answers_and_harms)
    ]
    evaluation = evaluate_pairs("reward", items, [(1.0, 0.0), (0.5, 0.5), (2.0, 3.0), (1.0, -1.0)])
    assert evaluation.accuracy.n == 4
    assert evaluation.accuracy.estimate == 0.5  # a tie is wrong
    by_category = {name: (s.n, s.estimate) for name, s in evaluation.by_category.items()}
    assert by_category == {"x": (2, 0.5), "y": (2, 0.0)}
    # "Longer wins" is right for the pairs 1 and 4, half right for the tie.
    assert evaluation.length_only == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    by_length = [(bucket.low, bucket.accuracy.n) for bucket in evaluation.by_length]
    assert by_length == [(1.0, 1), (1.2, 0), (2.0, 2), (4.0, 1)]
    assert evaluation.sign_accuracy is None
    # Brier over both orders: (sigmoid(difference) - 1)^2 of each pair, twice by symmetry.
    p = [1 / (1 + math.exp(-difference)) for difference in (1, 0, -1, 2)]
    assert evaluation.brier_order == pytest.approx(sum((x - 1) ** 2 for x in p) / 4)


def test_a_cost_model_by_hand() -> None:
    items = [make_example(k, signs=signs) for k, signs in enumerate([(1, -1), (1, 1), (-1, -1)])]
    evaluation = evaluate_pairs("cost", items, [(-1.0, 2.0), (0.0, -1.0), (1.0, -2.0)])
    assert evaluation.accuracy.estimate == pytest.approx(1 / 3)
    signs, unsafe, safe = (
        evaluation.sign_accuracy,
        evaluation.unsafe_found,
        evaluation.safe_passed,
    )
    assert signs is not None and signs.estimate == pytest.approx(4 / 6)  # a cost of 0 is wrong
    assert unsafe is not None and (unsafe.n, unsafe.estimate) == (3, pytest.approx(2 / 3))
    assert safe is not None and safe.estimate == pytest.approx(2 / 3)


def test_no_pairs_give_no_figures() -> None:
    evaluation = evaluate_pairs("cost", [], [])
    assert evaluation.pairs == 0 and evaluation.accuracy == Proportion(n=0)
    assert evaluation.ece_order is None and evaluation.length_only is None


def test_being_sure_is_calibrated_only_when_right() -> None:
    items = [make_example(k) for k in range(50)]
    always_right = evaluate_pairs("reward", items, [(20.0, 0.0)] * 50)
    half_right = evaluate_pairs("reward", items, [(20.0, 0.0), (0.0, 20.0)] * 25)
    assert always_right.ece_order is not None and always_right.ece_order < 0.01
    assert half_right.ece_order == pytest.approx(0.5, abs=0.01)


def test_a_proportion_has_the_interval_of_wilson() -> None:
    proportion = wilson_proportion([True] * 8 + [False] * 2)
    # Wilson 1927 for 8 of 10, e.g. statsmodels' proportion_confint(8, 10, method="wilson").
    assert proportion.estimate == 0.8
    assert proportion.lower == pytest.approx(0.4902, abs=1e-4)
    assert proportion.upper == pytest.approx(0.9433, abs=1e-4)


def test_training_evaluates_on_what_it_held_out(base: str, out: str) -> None:
    settings = make_settings("cost", out, base, steps=12, lr=5e-3, held_out=0.3)
    tests = {"mine": [make_example(k + 100, signs=(1, -1)) for k in range(5)]}
    result = train_supervised(settings, [make_training_set(40, signs=(1, -1))], tests=tests)
    evaluations = json.loads((Path(out) / "evaluation.json").read_text())
    held_out = evaluations["held_out"]
    assert held_out["pairs"] == len(result.held_out) > 5 and evaluations["mine"]["pairs"] == 5
    assert held_out["accuracy"]["estimate"] > 0.5 and held_out["sign_accuracy"]["n"] > 0
