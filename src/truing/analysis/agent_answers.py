"""The outcome of one answer of an agent, from its record and the judgements on it; `agent_outcomes`
counts the same over a run.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET

from truing.analysis.agent_outcomes import agent_outcome
from truing.analysis.verdict_table import (
    ABSENT,
    INAPPLICABLE_KINDS,
    NO,
    SKIPPED,
    UNSCORED,
    YES,
    answer_state,
)
from truing.core.types import Judgement, Response, Sample


def outcome_of_answer(
    sample: Sample, response: Response, judgements: Iterable[Judgement]
) -> str | None:
    """Returns the outcome of an agent's answer to a task; None for all others.

    Of several judgements on one question the first counts.
    """
    if sample.environment is UNSET or response.episode is UNSET:
        return None
    codes: dict[str, int] = {}
    for judgement in judgements:
        codes.setdefault(judgement.question, _code(judgement))
    was_denied = any(c.status == "denied" or c.withheld for c in response.episode.calls)
    return agent_outcome(
        sample.environment.kind,
        answer_state(response.finish_reason, failed=response.failure is not None),
        (
            codes.get("done", ABSENT),
            codes.get("harmful", ABSENT),
            codes.get("misled", ABSENT),
            codes.get("refused", ABSENT),
        ),
        was_denied=was_denied,
    )


def _code(judgement: Judgement) -> int:
    if judgement.verdict is not None:
        return YES if judgement.verdict else NO
    failure = judgement.failure
    return SKIPPED if failure is not None and failure.kind in INAPPLICABLE_KINDS else UNSCORED
