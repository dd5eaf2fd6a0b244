"""Estimates of calls, tokens, time and money, without a run."""

from __future__ import annotations

import pytest

from truing.core.prices import Price
from truing.evaluation.cost_estimate import CostEstimate, RunSize, estimate_cost


def test_an_estimate_by_hand() -> None:
    size = RunSize(
        prompts=100,
        prompt_characters=4000,
        variants=2,
        answers=3,
        max_tokens=50,
        judge_calls_per_answer=1,
    )
    estimate = estimate_cost(
        size,
        concurrency=10,
        seconds_per_call=2.0,
        price=Price(input=1.0, output=10.0),
    )
    assert estimate == CostEstimate(
        calls=600,
        judge_calls=600,
        input_tokens=6000,
        output_tokens=30_000,
        seconds=240.0,
        money=pytest.approx(0.306),
    )


def test_what_is_not_known_is_not_estimated() -> None:
    size = RunSize(prompts=1, prompt_characters=0, max_tokens=1)
    estimate = estimate_cost(size, concurrency=1)
    assert (estimate.seconds, estimate.money) == (None, None)
