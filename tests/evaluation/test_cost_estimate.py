"""Estimates of calls, tokens, time and money, and the file of prices."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.core.errors import PlanError
from truing.evaluation.cost_estimate import (
    CostEstimate,
    Price,
    RunSize,
    estimate_cost,
    read_prices,
)


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


def test_prices_are_read_by_model(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('["my-model"]\ninput = 0.15\noutput = 1\n')
    assert read_prices(path) == {"my-model": Price(input=0.15, output=1.0)}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[", "Invalid"),
        ("m = 3", "m: expected a table"),
        ("[m]\ninput = 1", "m.output: expected the price"),
        ("[m]\ninput = -1\noutput = 1", "m.input: expected the price"),
        ("[m]\ninput = nan\noutput = 1", "m.input: expected the price"),
        ("[m]\ninput = true\noutput = 1", "m.input: expected the price"),
        ('[m]\ninput = "1"\noutput = 1', "m.input: expected the price"),
        ("[m]\ninputs = 1\noutput = 1", "m.inputs: unknown key; did you mean 'input'"),
    ],
)
def test_a_wrong_price_names_its_key(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(PlanError, match=fault):
        read_prices(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="nowhere.toml"):
        read_prices(tmp_path / "nowhere.toml")
