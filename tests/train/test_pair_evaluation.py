"""The evaluation of reward and cost models against hand-computed numbers, and the length-only baseline."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from tests.train.parts import item, settings, source

from truing.train.pair_evaluation import evaluate_pairs
from truing.train.supervised import train_supervised


def test_reward_by_hand() -> None:
    items = [
        item(k, answers=a, harms=h)
        for k, (a, h) in enumerate(
            [
                (("long answer", "short"), ("x",)),
                (("aa", "bb"), ("x", "y")),
                (("s", "longer one"), ("y",)),
                (("abcd", "ab"), ()),
            ]
        )
    ]
    made = evaluate_pairs("reward", items, [(1.0, 0.0), (0.5, 0.5), (2.0, 3.0), (1.0, -1.0)])
    assert made.accuracy.n == 4 and made.accuracy.estimate == 0.5  # a tie is wrong
    assert {k: (s.n, s.estimate) for k, s in made.by_category.items()} == {
        "x": (2, 0.5),
        "y": (2, 0.0),
    }
    assert made.length_only == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    # Brier over both orders: (σ(1)-1)², ¼, (σ(-1)-1)², (σ(2)-1)², each twice by symmetry
    s = [1 / (1 + math.exp(-g)) for g in (1, 0, -1, 2)]
    assert made.brier_order == pytest.approx(sum((x - 1) ** 2 for x in s) / 4)
    assert [(b.low, b.accuracy.n) for b in made.by_length] == [
        (1.0, 1),
        (1.2, 0),
        (2.0, 2),
        (4.0, 1),
    ]
    assert made.sign_accuracy is None


def test_cost_by_hand() -> None:
    items = [item(0, signs=(1, -1)), item(1, signs=(1, 1)), item(2, signs=(-1, -1))]
    made = evaluate_pairs("cost", items, [(-1.0, 2.0), (0.0, -1.0), (1.0, -2.0)])
    assert made.accuracy.estimate == pytest.approx(1 / 3)
    assert made.sign_accuracy is not None and made.sign_accuracy.estimate == pytest.approx(
        4 / 6
    )  # 0 is wrong
    assert made.unsafe_found is not None and (made.unsafe_found.n, made.unsafe_found.estimate) == (
        3,
        pytest.approx(2 / 3),
    )
    assert made.safe_passed is not None and made.safe_passed.estimate == pytest.approx(2 / 3)
    assert evaluate_pairs("cost", [], []).pairs == 0


def test_a_sure_and_right_model_is_calibrated() -> None:
    items = [item(k) for k in range(50)]
    right = evaluate_pairs("reward", items, [(20.0, 0.0)] * 50)
    half = evaluate_pairs("reward", items, [(20.0, 0.0), (0.0, 20.0)] * 25)
    assert right.ece_order is not None and half.ece_order is not None
    assert right.ece_order < 0.01 and half.ece_order == pytest.approx(0.5, abs=0.01)


def test_training_writes_the_evaluation_of_what_it_held_out(base: str, out: str) -> None:
    given = settings("cost", out, base, steps=12, lr=5e-3, held_out=0.3)
    result = train_supervised(
        given,
        [source(40, signs=(1, -1))],
        tests={"mine": [item(k + 100, signs=(1, -1)) for k in range(5)]},
    )
    made = json.loads((Path(out) / "evaluation.json").read_text())
    assert made["held_out"]["pairs"] == len(result.held_out) > 5 and made["mine"]["pairs"] == 5
    assert (
        made["held_out"]["accuracy"]["estimate"] > 0.5
        and made["held_out"]["sign_accuracy"]["n"] > 0
    )
