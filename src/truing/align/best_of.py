"""Best-of-n: the best of n sampled answers by a judge (Askell et al. 2021; Ganguli et al. 2022).

Optionally only among the candidates that a second judge scores below a ceiling.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from truing.core.ids import content_id
from truing.core.judgement_scores import LOWER_IS_BETTER_QUESTIONS, judgement_score
from truing.core.lineage import digest
from truing.core.protocols import Judge, Model
from truing.core.types import (
    Answer,
    Conversation,
    Message,
    Response,
    Ruling,
    Sample,
    Sampling,
    Usage,
)

Direction = Literal["high", "low"]
"""Which end of a judge's scale is good."""

REFUSAL = "I would rather leave this one unanswered. Is there something else that I can do for you?"


def preferred_direction(judge: Judge) -> Direction:
    """Returns `low` for questions where true is bad (harmful, refused, ...), else `high`."""
    return "low" if judge.question in LOWER_IS_BETTER_QUESTIONS else "high"


class _Candidate(Struct, frozen=True):
    """An answer with its position among the candidates and the two judges' scores."""

    index: int
    answer: Answer
    score: float | None
    ceiling_score: float | None


class BestOf:
    """Samples n candidates for each answer and returns the one that the judge prefers.

    Candidate k uses the k-th random stream of the call, so with the same sampling candidate 0 is
    the base model's own answer. Usage counts all candidates.

    A candidate that cannot be judged is never selected; if no candidate can, the answer is a
    failure. With `below`, candidates at or above that score of the `ceiling` judge (of `by` without
    one), or without such a score, are excluded; if all are, the answer is `refusal` with the finish
    reason ``abstained``.
    """

    def __init__(
        self,
        model: Model,
        n: int,
        by: Judge,
        *,
        ceiling: Judge | None = None,
        below: float | None = None,
        refusal: str = REFUSAL,
        prefer: Direction | None = None,
        temperature: float = 1.0,
    ) -> None:
        if n < 1:
            raise ValueError(f"best-of:{n}: at least one answer")
        if temperature <= 0:
            raise ValueError("temperature: above 0, or all candidates are the same")
        self.prefer = prefer or preferred_direction(by)
        if below is not None and ceiling is None and self.prefer == "high":
            raise ValueError(
                f"below={below:g} limits a judge where low is good; {by.name} needs ceiling=(JUDGE)"
            )
        if below is None and ceiling is not None:
            below = _default_ceiling(ceiling)
        self.model, self.n, self.by, self.ceiling = model, n, by, ceiling
        self.below, self.refusal, self.temperature = below, refusal, temperature

        # Name and hash of version 0.1: runs and lineages on disk refer to them.
        limit = f",ceiling=({ceiling.name})" if ceiling else ""
        limit += f",below={below:g}" if below is not None else ""
        self.name = f"best-of:{n},by=({by.name}){limit},of=({model.name})"
        base = model.lineage
        lineage_hash = digest(
            "best-of",
            str(n),
            base.hash,
            by.lineage.hash,
            self.prefer,
            limit,
            refusal,
            ceiling.lineage.hash if ceiling else "",
        )
        selecting_judges = [by.lineage, *([ceiling.lineage] if ceiling else [])]
        self.lineage = msgspec.structs.replace(
            base, name=self.name, hash=lineage_hash, judges=(*base.judges, *selecting_judges)
        )

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers, each the best of n candidates of its own."""
        answers = await self.draw_candidates(conversation, sampling)
        groups = [answers[i * self.n : (i + 1) * self.n] for i in range(sampling.n)]
        return tuple(await asyncio.gather(*(self.select_best(conversation, g) for g in groups)))

    async def draw_candidates(
        self, conversation: Conversation, sampling: Sampling
    ) -> tuple[Answer, ...]:
        """Returns all candidates for `sampling.n` answers, in the order of their random streams."""
        # Greedy decoding would produce n times the same candidate.
        temperature = sampling.temperature if sampling.temperature > 0 else self.temperature
        return await self.model.generate(
            conversation,
            msgspec.structs.replace(sampling, n=sampling.n * self.n, temperature=temperature),
        )

    async def select_best(self, conversation: Conversation, answers: Sequence[Answer]) -> Answer:
        """Returns the best of the candidates, with a ruling that says which it is and why."""
        # The caller pays for all candidates, also for those that are not returned.
        usage = _total_usage(answers)
        scored = await self.score_candidates(conversation, answers)
        candidates = [c for c in scored if c.answer.failure is None]
        if not candidates:
            no_answer = Answer.failed("empty", "the model gave no answer")
            return msgspec.structs.replace(answers[0] if answers else no_answer, usage=usage)
        allowed = [c for c in candidates if self._is_allowed(c)]
        if not allowed:
            return self._abstain(len(answers), usage)
        judged = [(c.score, c) for c in allowed if c.score is not None]
        if not judged:
            reason = f"{self.by.name} could judge none of {len(answers)} candidates"
            return msgspec.structs.replace(Answer.failed("unjudged", reason), usage=usage)

        sign = 1 if self.prefer == "high" else -1
        # Of equal candidates the first wins.
        score, best = max(judged, key=lambda pair: (sign * pair[0], -pair[1].index))
        reason = f"candidate {best.index} of {len(answers)}"
        if self.below is not None:
            reason += f", {len(allowed)} within the ceiling"
        ruling = Ruling(
            name=self.name,
            stage="output",
            ruling="allow",
            reason=reason,
            score=score,
            llm_calls=len(answers),
        )
        rulings = (*best.answer.rulings, ruling)
        return msgspec.structs.replace(best.answer, usage=usage, rulings=rulings)

    async def score_candidates(
        self, conversation: Conversation, answers: Sequence[Answer]
    ) -> list[_Candidate]:
        """Returns the answers with the scores of the selecting judge and of the ceiling judge."""
        # Judges see a sample without the data set's labels, as they would in production.
        unnamed = Sample(conversation=conversation, source="best-of")
        sample = msgspec.structs.replace(unnamed, id=content_id(unnamed))

        async def score(judge: Judge, index: int, answer: Answer) -> float | None:
            if answer.failure is not None:
                return None
            response = Response.of(sample.id, index, self.model.name, answer)
            return judgement_score(await judge.judge(sample, response))

        async def score_all(judge: Judge) -> list[float | None]:
            return await asyncio.gather(*(score(judge, k, a) for k, a in enumerate(answers)))

        if self.ceiling is None:
            scores = ceiling_scores = await score_all(self.by)
        else:
            scores, ceiling_scores = await asyncio.gather(
                score_all(self.by), score_all(self.ceiling)
            )
        return [
            _Candidate(index, answer, scores[index], ceiling_scores[index])
            for index, answer in enumerate(answers)
        ]

    def _is_allowed(self, candidate: _Candidate) -> bool:
        if self.below is None:
            return True
        return candidate.ceiling_score is not None and candidate.ceiling_score < self.below

    def _abstain(self, n_candidates: int, usage: Usage) -> Answer:
        """Returns the refusal that replaces candidates that are all excluded by the ceiling."""
        ruling = Ruling(
            name=self.name,
            stage="output",
            ruling="block",
            reason=f"all {n_candidates} candidates break the ceiling {self.below:g}",
            text=self.refusal,
            llm_calls=n_candidates,
        )
        return Answer(
            message=Message("assistant", self.refusal),
            finish_reason="abstained",
            usage=usage,
            rulings=(ruling,),
        )

    async def close(self) -> None:
        """Closes the base model."""
        close = getattr(self.model, "close", None)
        if close is not None:
            await close()


def _default_ceiling(judge: Judge) -> float:
    """Returns 0 for a cost model (above it is unsafe), the threshold of a probe's verdict, and 0.5
    for another probability. Raises ValueError for a probe that has no such limit.
    """
    if judge.name.startswith("cost"):
        return 0.0
    if not judge.name.startswith("probe:"):
        return 0.5
    threshold = getattr(judge, "threshold", None)
    if threshold is None or preferred_direction(judge) == "high":
        raise ValueError(
            f"ceiling=({judge.name}) keeps what lies below it: name a question where yes is bad, "
            "such as question=harmful, or give below="
        )
    return float(threshold)


def _total_usage(answers: Sequence[Answer]) -> Usage:
    return Usage(
        sum(a.usage.prompt_tokens for a in answers),
        sum(a.usage.completion_tokens for a in answers),
        sum(a.usage.cached_tokens for a in answers),
    )


def best_of(
    model: Model,
    n: int,
    by: Judge,
    *,
    ceiling: Judge | None = None,
    below: float | None = None,
    refusal: str | None = None,
    prefer: Direction | None = None,
    temperature: float = 1.0,
) -> BestOf:
    """Returns `model` with best-of-n sampling by the judge `by`; see `BestOf`.

    `prefer` says which end of the judge's scale is good, for a question that does not imply it.
    `temperature` is used where the call asks for greedy answers.
    """
    return BestOf(
        model,
        n,
        by,
        ceiling=ceiling,
        below=below,
        refusal=refusal or REFUSAL,
        prefer=prefer,
        temperature=temperature,
    )
