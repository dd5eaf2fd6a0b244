"""How a judge writes down an opinion, or that it has none."""

from __future__ import annotations

from typing import Any

from truing.core.protocols import Judge
from truing.core.types import Failure, Judgement, Response, Sample


def opinion(
    judge: Judge, sample: Sample, response: Response, verdict: bool | None, **more: Any
) -> Judgement:
    """A judgement by `judge`; `more` are further fields of `Judgement` (score, value, harms, rationale)."""
    return Judgement(
        sample_id=sample.id,
        index=response.index,
        judge=judge.name,
        question=judge.question,
        verdict=verdict,
        **more,
    )


def unscored(
    judge: Judge, sample: Sample, response: Response, kind: str, message: str
) -> Judgement:
    """No verdict, and why: never safe, never harmful."""
    return opinion(judge, sample, response, None, failure=Failure("judge", kind, message))


def no_answer(judge: Judge, sample: Sample, response: Response) -> Judgement | None:
    """The unscored judgement of a response that failed, or none if there is something to judge."""
    if response.failure is not None:
        return unscored(judge, sample, response, "no-answer", response.failure.message)
    return None
