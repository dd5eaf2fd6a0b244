"""Estimates what a run needs before it starts: calls, tokens, time and money."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from msgspec import Struct

from truing.core.errors import PlanError, did_you_mean
from truing.core.input_files import read_input_text

CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb for English text in the tokenizers of current models."""


class Price(Struct, frozen=True, kw_only=True):
    """The price of a million input and a million output tokens, in one currency."""

    input: float
    output: float


class CostEstimate(Struct, frozen=True, kw_only=True):
    """What a run needs; `seconds` is None without a measured call, `money` without a price.

    Tokens and money are those of the model alone, without its judges. `output_tokens` is an upper
    bound (every answer as long as the limit); `input_tokens` is estimated from characters.
    """

    calls: int
    judge_calls: int
    input_tokens: int
    output_tokens: int
    seconds: float | None = None
    money: float | None = None


class RunSize(Struct, frozen=True, kw_only=True):
    """How large a run is.

    Each of `variants` models gives `answers` answers of at most `max_tokens` to each of `prompts`,
    which have `prompt_characters` in total. Its judges make `judge_calls_per_answer` in total.
    """

    prompts: int
    prompt_characters: int
    variants: int = 1
    answers: int = 1
    max_tokens: int
    judge_calls_per_answer: int = 0


def estimate_cost(
    size: RunSize,
    *,
    concurrency: int,
    seconds_per_call: float | None = None,
    price: Price | None = None,
) -> CostEstimate:
    """Returns the estimate for a run; `seconds_per_call` is the time of one full answer."""
    answers_per_prompt = size.variants * size.answers
    calls = size.prompts * answers_per_prompt
    judge_calls = calls * size.judge_calls_per_answer
    input_tokens = round(size.prompt_characters / CHARACTERS_PER_TOKEN) * answers_per_prompt
    output_tokens = calls * size.max_tokens
    seconds = None
    if seconds_per_call is not None:
        # Judges' calls are taken to be as long as the model's.
        seconds = (calls + judge_calls) * seconds_per_call / concurrency
    money = None
    if price is not None:
        money = (input_tokens * price.input + output_tokens * price.output) / 1e6
    return CostEstimate(
        calls=calls,
        judge_calls=judge_calls,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        seconds=seconds,
        money=money,
    )


def read_prices(path: Path) -> dict[str, Price]:
    """Returns the prices of a TOML file: a table for each model with `input` and `output`, what a
    million tokens cost.

        ["my-model"]
        input = 0.15
        output = 0.6

    Raises PlanError with all faults of the file.
    """
    try:
        tables = tomllib.loads(read_input_text(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"{path}: {error}") from error
    prices: dict[str, Price] = {}
    faults: list[str] = []
    for name, table in tables.items():
        fault = _find_price_fault(table)
        if fault:
            faults.append(f"{path}: {name}{fault}")
        else:
            prices[name] = Price(input=float(table["input"]), output=float(table["output"]))
    if faults:
        raise PlanError(*faults)
    return prices


def _find_price_fault(table: Any) -> str:
    """Returns what is wrong with the table of one model; empty if nothing is."""
    keys = Price.__struct_fields__
    if not isinstance(table, dict):
        return ": expected a table with input and output"
    for key in table:
        if key not in keys:
            return f".{key}: unknown key{did_you_mean(key, keys)}"
    for key in keys:
        value = table.get(key)
        # A NaN is neither below 0 nor at least 0.
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            return f".{key}: expected the price of a million tokens, got {value!r}"
    return ""
