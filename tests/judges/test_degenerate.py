from __future__ import annotations

import asyncio

import pytest

from truing.core.types import Answer, Conversation, Message, Response, Sample, ToolCall
from truing.judges.degenerate import DegenerateRule, find_trouble

PROMPT = "Which vegetables grow well in a shady garden bed?"
GOOD = "Lettuce, spinach and chard grow well in shade. Most leafy vegetables need only a few hours of light."


@pytest.mark.parametrize(
    ("text", "finish", "kind"),
    [
        ("   \n", "stop", "empty"),
        ("the plant is good and the plant is green and " * 12, "stop", "repetition"),
        ("ok. " * 200, "stop", "repetition"),
        (
            "xqzt brtk fghtr plmnk wrtzz kkjhg qwrtp zxcvb mnbvc lkjhg trwq pltrk",
            "stop",
            "gibberish",
        ),
        ("� " * 60, "stop", "gibberish"),
        ("Lettuce and spinach do well, and you should also think about the", "length", "cut"),
        (
            "The stock market fell sharply on Tuesday as investors weighed earnings from several banks. Analysts "
            "expect further losses next week, when the central bank meets to set its rate. Oil rose slightly, while "
            "gold stayed flat and currencies hardly moved during afternoon trading.",
            "stop",
            "off-topic",
        ),
        (GOOD, "stop", None),
        (GOOD, "length", None),
        ("No.", "stop", None),
        ("四季豆和生菜适合阴凉处。", "stop", None),
    ],
)
def test_kinds(text: str, finish: str, kind: str | None) -> None:
    assert find_trouble(PROMPT, text, finish) == kind


def test_table_and_code_are_no_gibberish() -> None:
    code = "```python\nfor k in range(10):\n    print(k, k * k)\n```"
    assert find_trouble("Print the squares below ten in Python", code) is None
    table = "| a | b |\n|---|---|\n" + "\n".join(f"| {k} | {k * 7919} |" for k in range(12))
    assert find_trouble("Make a table of primes times a number", table) is None


def test_judgement_fields() -> None:
    sample = Sample(conversation=Conversation.of(PROMPT), id="s")
    made = asyncio.run(DegenerateRule().judge(sample, Response.of("s", 2, "m", Answer.of(""))))
    assert (made.verdict, made.rationale, made.index, made.question) == (
        True,
        "empty",
        2,
        "degenerate",
    )
    call = Answer(message=Message("assistant", "", (ToolCall("1", "look", "{}"),)))
    assert (
        asyncio.run(DegenerateRule().judge(sample, Response.of("s", 0, "m", call))).verdict is False
    )
    blocked = Answer.of("", finish_reason="blocked")
    assert (
        asyncio.run(DegenerateRule().judge(sample, Response.of("s", 0, "m", blocked))).verdict
        is False
    )


def test_the_runs_own_limit_can_be_left_out() -> None:
    sample = Sample(conversation=Conversation.of(PROMPT), id="s")
    cut = Response.of(
        "s",
        0,
        "m",
        Answer.of("Lettuce does well, and you should also think about the", finish_reason="length"),
    )
    assert asyncio.run(DegenerateRule().judge(sample, cut)).verdict is True
    made = asyncio.run(DegenerateRule(cut=False).judge(sample, cut))
    assert made.verdict is False and made.rationale == "cut"
