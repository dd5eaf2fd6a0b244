"""Answers and judgements in the form in which they are stored."""

from __future__ import annotations

from typing import Any

import pytest

from truing.core import output_filter
from truing.core.types import Answer, Judgement, Message, ToolCall
from truing.evaluation.validation import (
    KEPT_ANSWER_CHARS,
    MAX_ANSWER_CHARS,
    prepare_answer,
    validate_judgement,
)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("just text", "the model gave a str, not an Answer"),
        (None, "the model gave a NoneType, not an Answer"),
        (
            Answer(message=Message("assistant", None)),
            "the answer's content is a NoneType, not text",
        ),  # type: ignore[arg-type]
    ],
)
def test_anything_but_an_answer_becomes_a_failure(answer: Any, reason: str) -> None:
    stored = prepare_answer(answer)
    assert stored.failure is not None
    assert (stored.failure.kind, stored.failure.message) == ("unparsable", reason)


def test_valid_answer_is_unchanged() -> None:
    for text in ("hello", "", "ünïcode ✓", "x" * MAX_ANSWER_CHARS):
        answer = Answer.of(text)
        assert prepare_answer(answer) is answer


def test_lone_surrogates_are_replaced_and_long_answers_cut() -> None:
    assert prepare_answer(Answer.of("a\ud800b")).text == "a?b"
    calls = (ToolCall("1", "look"),)
    long = prepare_answer(Answer(message=Message("assistant", "y" * (MAX_ANSWER_CHARS + 1), calls)))
    assert long.failure is not None
    assert (long.failure.kind, long.text, long.finish_reason) == (
        "too_large",
        "y" * KEPT_ANSWER_CHARS,
        "length",
    )
    assert long.message.tool_calls == calls


def test_output_filter_is_applied_before_an_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        output_filter,
        "find_prohibited_content",
        lambda text: output_filter.FilterMatch("child_abuse", "abc") if "marked" in text else None,
    )
    answer = prepare_answer(Answer.of("marked " + "z" * MAX_ANSWER_CHARS))
    assert answer.text == ""
    assert answer.failure is not None
    assert (answer.failure.stage, answer.failure.kind) == ("floor", "withheld")
    rationale = validate_judgement(
        Judgement(sample_id="s", judge="j", question="q", rationale="it says: marked")
    ).rationale
    assert rationale is not None
    assert "marked" not in rationale


def test_verdict_becomes_a_bool_and_other_types_raise() -> None:
    judgement = Judgement(sample_id="s", judge="j", question="q", verdict=True)
    assert validate_judgement(judgement) is judgement
    assert (
        validate_judgement(Judgement(sample_id="s", judge="j", question="q", verdict=1)).verdict
        is True
    )  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the judge gave a bool, not a Judgement"):
        validate_judgement(True)
