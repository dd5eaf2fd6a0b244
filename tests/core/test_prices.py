"""The file of prices, and what answers cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.core.errors import PlanError
from truing.core.prices import (
    Price,
    Spending,
    estimate_tokens,
    find_price,
    format_money,
    read_prices,
)


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
        ("[m]\ninput = inf\noutput = 1", "m.input: expected the price"),
        ('[m]\ninput = "1"\noutput = 1', "m.input: expected the price"),
        ("[m]\ninputs = 1\noutput = 1", "m.inputs: unknown key; did you mean 'input'"),
    ],
)
def test_a_wrong_price_names_its_key(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(PlanError, match=fault):
        read_prices(path)


def test_all_faults_of_a_file_are_named_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('[a]\ninptu = 3\noutput = -1\n[b]\ninput = "x"\noutput = 1\n')
    with pytest.raises(PlanError) as caught:
        read_prices(path)
    assert caught.value.faults == (
        f"{path}:2: a.inptu: unknown key; did you mean 'input'?",
        f"{path}:1: a.input: expected the price of a million tokens, missing",
        f"{path}:3: a.output: expected the price of a million tokens, got -1",
        f"{path}:5: b.input: expected the price of a million tokens, got 'x'",
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="nowhere.toml"):
        read_prices(tmp_path / "nowhere.toml")


def test_the_first_name_with_a_price_counts() -> None:
    prices = {"a": Price(input=1, output=2), "b": Price(input=3, output=4)}
    assert find_price(prices, ("x", "b", "a")) == prices["b"]
    assert find_price(prices, ("x",)) is None


def test_money_is_counted_by_the_million() -> None:
    assert Price(input=2, output=10).money(500_000, 100_000) == pytest.approx(2.0)
    assert [format_money(x) for x in (0, 0.00042, 0.5, 1234.5)] == [
        "0.00",
        "0.00042",
        "0.50",
        "1,234.50",
    ]
    assert [estimate_tokens(n) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_spending_says_what_is_estimated() -> None:
    spending = Spending(answers=4, estimated=1, tokens_read=1000, tokens_written=5, money=0.25)
    assert spending.describe() == (
        "spent on answers: 0.25 in the currency of the prices, 1,000 tokens read and 5 written; "
        "1 of 4 answers state no usage and are estimated"
    )
