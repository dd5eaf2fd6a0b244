"""Makes the judgements of a judge: a verdict, or unscored with the reason."""

from __future__ import annotations

from typing import Any

from truing.core.protocols import Judge
from truing.core.types import Failure, Judgement, Response, Sample


def make_judgement(
    judge: Judge, sample: Sample, response: Response, verdict: bool | None, **fields: Any
) -> Judgement:
    """Returns a judgement by `judge`; `fields` are further ones of `Judgement` (score, value,
    harms, rationale).
    """
    return Judgement(
        sample_id=sample.id,
        index=response.index,
        judge=judge.name,
        question=judge.question,
        verdict=verdict,
        **fields,
    )


def make_unscored(
    judge: Judge, sample: Sample, response: Response, kind: str, message: str
) -> Judgement:
    """Returns a judgement without verdict and why there is none: it counts as neither safe nor
    harmful.
    """
    return make_judgement(judge, sample, response, None, failure=Failure("judge", kind, message))


def check_failed_response(judge: Judge, sample: Sample, response: Response) -> Judgement | None:
    """Returns the unscored judgement of a failed response; None if there is something to judge."""
    if response.failure is not None:
        return make_unscored(judge, sample, response, "no-answer", response.failure.message)
    return None
