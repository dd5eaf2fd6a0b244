"""The number of a judgement, and the questions to which a low one is better."""

from __future__ import annotations

import math
from typing import Any

import pytest

from truing.core.judgement_scores import (
    HARM_QUESTIONS,
    LOWER_IS_BETTER_QUESTIONS,
    judgement_score,
)
from truing.core.types import Failure, Judgement
from truing.judges.guard_formats import PROMPT_QUESTIONS


@pytest.mark.parametrize(
    ("fields", "score"),
    [
        ({"value": 2.0, "score": 0.1, "verdict": False}, 2.0),
        ({"score": 0.1, "verdict": True}, 0.1),
        ({"verdict": True}, 1.0),
        ({"verdict": False}, 0.0),
        ({}, None),
        ({"value": math.inf, "verdict": True}, None),
        ({"score": math.nan, "verdict": True}, None),
        ({"value": 2.0, "failure": Failure("judge", "empty", "no text")}, None),
    ],
)
def test_value_counts_before_score_before_verdict(
    fields: dict[str, Any], score: float | None
) -> None:
    judgement = Judgement(sample_id="s", judge="j", question="q", **fields)
    assert judgement_score(judgement) == score


def test_harm_speaks_against_an_answer_and_so_do_refusals() -> None:
    assert HARM_QUESTIONS < LOWER_IS_BETTER_QUESTIONS
    assert {"harmful", "breaks_policy", "cost", "misled"} <= HARM_QUESTIONS
    assert LOWER_IS_BETTER_QUESTIONS.isdisjoint({"helpful", "reward", "passes", "done", "on_tone"})
    assert "refused" not in HARM_QUESTIONS
    # Guards ask these of prompts; of all of them "yes" speaks against the prompt.
    assert PROMPT_QUESTIONS <= LOWER_IS_BETTER_QUESTIONS
