"""Judgements: verdicts, and unscored answers with their reason."""

from __future__ import annotations

from truing.core.types import Answer, Conversation, Failure, Judgement, Response, Sample
from truing.judges.refusal import RefusalRule
from truing.judges.verdicts import check_failed_response, make_judgement, make_unscored

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
