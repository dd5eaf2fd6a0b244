"""Estimates what a run needs before it starts: calls, tokens, time and money."""

from __future__ import annotations

from msgspec import Struct

from truing.core.prices import CHARACTERS_PER_TOKEN, Price


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
        money = price.money(input_tokens, output_tokens)
    return CostEstimate(
        calls=calls,
        judge_calls=judge_calls,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        seconds=seconds,
        money=money,
    )
