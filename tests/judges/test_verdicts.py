"""Judgements: verdicts, and unscored answers with their reason."""

from __future__ import annotations

import asyncio

import pytest

from truing.core.types import (
    Answer,
    Conversation,
    Failure,
    Judgement,
    Message,
    Response,
    Sample,
    ToolCall,
)
from truing.judges.refusal import RefusalRule
from truing.judges.verdicts import (
    check_failed_response,
    check_missing_text,
    make_judgement,
    make_unscored,
    text_of_message,
)
from truing.specs.resolve import resolve

JUDGE = RefusalRule()
SAMPLE = Sample(id="s1", conversation=Conversation.of("a question"))
RESPONSE = Response.of("s1", 2, "model", Answer.of("an answer"))


def test_a_judgement_names_sample_answer_judge_and_question() -> None:
    assert make_judgement(JUDGE, SAMPLE, RESPONSE, True, score=0.9, rationale="why") == Judgement(
        sample_id="s1",
        index=2,
        judge="rules:refusal",
        question="refused",
        verdict=True,
        score=0.9,
        rationale="why",
    )


def test_an_unscored_answer_has_a_reason_and_no_verdict() -> None:
    judgement = make_unscored(JUDGE, SAMPLE, RESPONSE, "unparsable", "neither yes nor no")
    assert judgement.verdict is None and judgement.score is None
    assert judgement.failure == Failure("judge", "unparsable", "neither yes nor no")


def test_a_failed_response_is_never_judged() -> None:
    assert check_failed_response(JUDGE, SAMPLE, RESPONSE) is None
    failed = Response.of("s1", 2, "model", Answer.failed("timeout", "no answer in 60 s"))
    judgement = check_failed_response(JUDGE, SAMPLE, failed)
    assert judgement is not None and judgement.verdict is None
    assert judgement.failure == Failure("judge", "no-answer", "no answer in 60 s")


def test_an_answer_without_text_is_never_judged() -> None:
    assert check_missing_text(JUDGE, SAMPLE, RESPONSE) is None
    for text in ("", " \n\t"):
        empty = Response.of("s1", 2, "model", Answer.of(text))
        judgement = check_missing_text(JUDGE, SAMPLE, empty)
        assert judgement is not None and judgement.verdict is None
        assert judgement.failure == Failure("judge", "empty", "the answer is empty")
    failed = Response.of("s1", 2, "model", Answer.failed("timeout", "no answer in 60 s"))
    assert check_missing_text(JUDGE, SAMPLE, failed) == check_failed_response(JUDGE, SAMPLE, failed)


def test_the_text_of_a_message_has_the_arguments_of_its_tool_calls() -> None:
    calls = (
        ToolCall("1", "send", '{"to": "a\\u0062c", "n": 7, "list": ["x", null, {"k": true}]}'),
        ToolCall("2", "run", "no json {"),
        ToolCall("3", "deep", "[" * 100_000),
    )
    text = text_of_message(Message("assistant", "hello", calls[:2]))
    assert text.split("\n") == ["hello", "to", "abc", "n", "7", "list", "x", "k", "no json {"]
    assert text_of_message(Message("assistant", "", calls[2:])) == "[" * 100_000
    assert text_of_message(Message("user", "hello")) == "hello"


@pytest.mark.parametrize(
    "spec",
    ["rules:refusal", "rules:degenerate", "rules:clarifies", "rules:supports", "rules:confidence"],
)
def test_a_program_reads_the_whole_answer_or_gives_no_verdict(spec: str) -> None:
    judge = resolve(spec, "judge")
    sample = Sample(id="a", conversation=Conversation.of("question"))
    response = Response.of("a", 0, "m", Answer.of("word " * 4_001))
    judgement = asyncio.run(judge.judge(sample, response))
    assert judgement.verdict is None and judgement.failure is not None
    assert judgement.failure.kind == "too-long"
