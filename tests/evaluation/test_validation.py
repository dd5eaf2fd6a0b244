"""What a run lets pass: real answers and judgements, of bounded length, in Unicode, past the floor."""

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
    ("given", "said"),
    [
        ("just text", "the model gave a str, not an Answer"),
        (None, "the model gave a NoneType, not an Answer"),
        (
            Answer(message=Message("assistant", None)),
            "the answer's content is a NoneType, not text",
        ),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_answer_is_a_failure(given: Any, said: str) -> None:
    made = prepare_answer(given)
    assert made.failure is not None
    assert (made.failure.kind, made.failure.message) == ("unparsable", said)


def test_an_answer_passes_as_it_is() -> None:
    for text in ("hello", "", "ünïcode ✓", "x" * MAX_ANSWER_CHARS):
        answer = Answer.of(text)
        assert prepare_answer(answer) is answer


def test_lone_surrogates_and_endless_answers_are_mended() -> None:
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


def test_the_floor_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        output_filter,
        "find_prohibited_content",
        lambda text: output_filter.FilterMatch("child_abuse", "abc") if "marked" in text else None,
    )
    held = prepare_answer(Answer.of("marked " + "z" * MAX_ANSWER_CHARS))
    assert held.text == ""
    assert held.failure is not None
    assert (held.failure.stage, held.failure.kind) == ("floor", "withheld")
    rationale = validate_judgement(
        Judgement(sample_id="s", judge="j", question="q", rationale="it says: marked")
    ).rationale
    assert rationale is not None
    assert "marked" not in rationale


def test_what_a_judge_may_give() -> None:
    judgement = Judgement(sample_id="s", judge="j", question="q", verdict=True)
    assert validate_judgement(judgement) is judgement
    assert (
        validate_judgement(Judgement(sample_id="s", judge="j", question="q", verdict=1)).verdict
        is True
    )  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the judge gave a bool, not a Judgement"):
        validate_judgement(True)
