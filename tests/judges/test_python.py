"""A Python function as a judge."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import SpecError
from truing.core.types import Conversation, Failure, Judgement, Message, Response, Sample
from truing.judges.python import PythonJudge
from truing.specs.resolve import resolve

SAMPLE = Sample(conversation=Conversation.of("the prompt"), id="s")
RESPONSE = Response(sample_id="s", message=Message("assistant", "the answer"))


def judge_with(function: Any, response: Response = RESPONSE) -> Judgement:
    return asyncio.run(PythonJudge(function).judge(SAMPLE, response))


class Unreadable:
    """A result whose methods raise."""

    def item(self) -> bool:
        raise RuntimeError("lost")


def long_answer(answer: str) -> bool:
    """Used by spec in a test below."""
    return len(answer) > 5


def test_parameters_are_filled_by_their_names() -> None:
    seen: list[tuple[object, ...]] = []

    def all_of_them(response: Any, sample: Any, answer: str, prompt: str) -> bool:
        seen.append((response, sample, answer, prompt))
        return True

    assert judge_with(all_of_them).verdict is True
    assert seen == [(RESPONSE, SAMPLE, "the answer", "the prompt")]
    assert judge_with(lambda text: text == "the answer").verdict is True
    assert judge_with(lambda q, a: (q, a) == ("the prompt", "the answer")).verdict is True


def test_an_async_function_is_awaited() -> None:
    async def slow(answer: str) -> bool:
        await asyncio.sleep(0)
        return False

    assert judge_with(slow).verdict is False


def test_an_object_with_an_async_call_and_a_lambda_over_one_are_awaited() -> None:
    class Later:
        async def __call__(self, answer: str) -> bool:
            await asyncio.sleep(0)
            return answer == "the answer"

    later = Later()
    for function in (later, lambda answer: later(answer)):
        judgement = asyncio.run(PythonJudge(function, name="later").judge(SAMPLE, RESPONSE))
        assert judgement.verdict is True


def test_a_number_is_a_value_and_gives_no_verdict() -> None:
    for result in (0.25, np.float64(0.25)):
        judgement = judge_with(lambda answer, result=result: result)
        assert (judgement.value, judgement.verdict) == (0.25, None)
    assert judge_with(lambda answer: np.bool_(True)).verdict is True


def test_a_dictionary_has_all_fields() -> None:
    judgement = judge_with(
        lambda answer: {
            "verdict": True,
            "score": 0.9,
            "harms": {"privacy_violation": 0.7},
            "rationale": "why",
        }
    )
    assert (judgement.verdict, judgement.score, judgement.rationale) == (True, 0.9, "why")
    assert judgement.harms == {"privacy_violation": 0.7}


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (None, "unclear"),
        ({"rationale": "hm"}, "unclear"),
        ("safe", "unparsable"),
        (float("nan"), "unparsable"),
        ({"verdict": "no"}, "unparsable"),
        ({"verdict": True, "score": 1.5}, "unparsable"),
        ({"verdict": True, "harms": ["x"]}, "unparsable"),
        ({"verdikt": False}, "unparsable"),
        ({"verdict": False, "rationale": 3}, "unparsable"),
        (np.array([True, False]), "unparsable"),
        (np.array([]), "unparsable"),
        pytest.param(10**400, "unparsable", id="more than a float holds"),
        pytest.param(10**5000, "unparsable", id="more digits than Python writes"),
        ({"verdict": True, "score": 10**400}, "unparsable"),
        ({"verdict": True, "harms": {"privacy_violation": 10**400}}, "unparsable"),
        (Unreadable(), "unparsable"),
    ],
)
def test_what_is_no_verdict_is_unscored(result: object, kind: str) -> None:
    judgement = judge_with(lambda answer: result)
    assert judgement.verdict is None
    assert judgement.failure is not None
    assert judgement.failure.kind == kind


def test_what_raises_is_unscored_and_a_failed_answer_is_not_judged() -> None:
    judgement = judge_with(lambda answer: 1 / 0)
    assert judgement.failure is not None
    assert judgement.failure.kind == "exception"
    assert "ZeroDivisionError" in judgement.failure.message
    failed = Response(
        sample_id="s", message=Message("assistant", ""), failure=Failure("model", "timeout", "late")
    )
    assert judge_with(lambda answer: False, failed).verdict is None


@given(
    st.one_of(
        st.text(),
        st.floats(),
        st.lists(st.booleans()),
        st.dictionaries(st.text(max_size=9), st.one_of(st.booleans(), st.floats(), st.text())),
    )
)
def test_only_true_and_false_are_verdicts(result: object) -> None:
    judgement = judge_with(lambda answer: result)
    given_verdict = result.get("verdict") if isinstance(result, dict) else None
    assert judgement.verdict is None or judgement.verdict is given_verdict


def test_a_spec_names_a_function_and_its_question() -> None:
    judge = resolve(f"python:{__name__}:long_answer,question=long", "judge")
    assert (judge.question, judge.name) == ("long", f"python:{__name__}:long_answer")
    with pytest.raises(SpecError, match="has no 'nothing'"):
        resolve(f"python:{__name__}:nothing", "judge")
    with pytest.raises(SpecError, match="takes a, b, c"):
        PythonJudge(lambda a, b, c: True)
