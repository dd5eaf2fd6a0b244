from __future__ import annotations

import math
import random

import pytest

from truing.core.types import Judgement, TokenLogprob
from truing.judges.confidence import (
    match_confidence,
    measure_calibration,
    stated_confidence,
    token_confidence,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Paris. I am 90% confident.", 0.9),
        ("Confidence: 75%", 0.75),
        ("Confidence: 0.6", 0.6),
        ("My confidence is about 40 percent.", 0.4),
        ("There is a 55 % chance.", 0.55),
        ("probability of 0.25", 0.25),
        ("I am absolutely sure.", 0.97),
        ("I'm sure.", 0.93),
        ("I am fairly certain.", 0.85),
        ("It is probably Rome.", 0.7),
        ("Perhaps Rome.", 0.45),
        ("I'm not sure, maybe Rome.", 0.2),
        ("Just a guess: Rome.", 0.25),
    ],
)
def test_stated(text: str, value: float) -> None:
    assert stated_confidence(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["Rome.", "", "5% of the people live there.", "I am 900% sure."])
def test_nothing_stated(text: str) -> None:
    assert stated_confidence(text) is None


def test_tokens() -> None:
    tokens = [TokenLogprob("a", math.log(0.5)), TokenLogprob("b", math.log(0.125))]
    assert token_confidence(tokens) == pytest.approx(0.25)
    assert token_confidence(None) is None and token_confidence([]) is None
    assert token_confidence([TokenLogprob("a", -math.inf)]) is None


def test_calibration_by_hand() -> None:
    got = measure_calibration([0.9, 0.9, 0.1, 0.6], [True, False, False, True])
    assert (got.n, got.accuracy, got.confidence) == (4, 0.5, pytest.approx(0.625))
    assert got.brier == pytest.approx((0.01 + 0.81 + 0.01 + 0.16) / 4)
    assert got.ece == pytest.approx((2 * 0.4 + 0.1 + 0.4) / 4)
    assert [b.n for b in got.reliability] == [1, 1, 2]
    assert got.selective[-1].coverage == 1.0 and got.selective[-1].accuracy.estimate == 0.5


def test_calibrated_by_simulation() -> None:
    rng = random.Random(0)
    p = [rng.random() for _ in range(20_000)]
    y = [rng.random() < x for x in p]
    got = measure_calibration(p, y)
    assert got.ece < 0.015 and got.brier == pytest.approx(1 / 6, abs=0.01)
    accuracy = [s.accuracy.estimate for s in got.selective]
    assert accuracy == sorted(accuracy, reverse=True)


@pytest.mark.parametrize(
    ("confidences", "outcomes", "message"),
    [
        ([], [], r"probabilities and outcomes of shapes \(0,\) and \(0,\)"),
        ([0.5], [True, False], r"probabilities and outcomes of shapes \(1,\) and \(2,\)"),
        ([1.5], [True], r"probabilities must lie in \[0, 1\]"),
    ],
)
def test_bad_input(confidences: list[float], outcomes: list[bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_calibration(confidences, outcomes)


def test_matched_joins_by_answer() -> None:
    sure = [
        Judgement(sample_id="a", judge="c", question="confident", value=0.9, verdict=True),
        Judgement(sample_id="b", judge="c", question="confident"),
    ]
    right = [
        Judgement(sample_id="a", judge="k", question="passes", verdict=False),
        Judgement(sample_id="b", judge="k", question="passes", verdict=True),
        Judgement(sample_id="a", index=1, judge="k", question="passes", verdict=True),
    ]
    assert match_confidence(sure, right) == ([0.9], [False])
