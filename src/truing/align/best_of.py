"""The best of n answers by a judge, under a ceiling of another if wanted (Askell et al. 2021; Ganguli et al. 2022)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from truing.core.lineage import digest
from truing.core.protocols import Judge, Model
from truing.core.types import (
    Answer,
    Conversation,
    Judgement,
    Message,
    Response,
    Ruling,
    Sample,
    Sampling,
    Usage,
    content_id,
)

Direction = Literal["high", "low"]
REFUSAL = "I would rather leave this one unanswered. Is there something else that I can do for you?"
_LOWER_IS_BETTER = ("harmful", "harmful_prompt", "unsafe", "refused", "degenerate", "cost", "toxic")


def read_score(judgement: Judgement) -> float | None:
    """What a judgement says as one number: its value, else its score, else its verdict; none if it is unscored."""
    if judgement.failure is not None:
        return None
    for number in (judgement.value, judgement.score):
        if number is not None:
            return number if math.isfinite(number) else None
    return None if judgement.verdict is None else float(judgement.verdict)


def preferred_direction(judge: Judge) -> Direction:
    """low for questions where true is bad (harmful, refused, degenerate, ...), high for the others."""
    return "low" if judge.question in _LOWER_IS_BETTER else "high"


class BestOf:
    """Draws n answers for each one asked for and returns the one that the judge likes best.

    Candidate k has the k-th random stream of the call, so with the same sampling the base model's answer is
    candidate 0. Usage is that of all candidates. A candidate that could not be judged is never chosen; if none could
    be, the answer is a failure. With a `ceiling` candidates that the ceiling judge puts at or above `below` (or
    cannot judge) are out; when all are out the refusal is returned with finish reason ``abstained``.
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
        self.model, self.n, self.by, self.ceiling = model, n, by, ceiling
        if below is not None and ceiling is None and (prefer or preferred_direction(by)) == "high":
            raise ValueError(
                f"below={below:g} limits a judge where low is good; {by.name} needs ceiling=(JUDGE)"
            )
        self.below = below if below is not None or ceiling is None else _default_ceiling(ceiling)
        self.refusal, self.prefer, self.temperature = (
            refusal,
            prefer or preferred_direction(by),
            temperature,
        )
        limit = f",ceiling=({ceiling.name})" if ceiling else ""
        limit += f",below={self.below:g}" if self.below is not None else ""
        self.name = f"best-of:{n},by=({by.name}){limit},of=({model.name})"
        below_it = model.lineage
        made = digest(
            "best-of",
            str(n),
            below_it.hash,
            by.lineage.hash,
            self.prefer,
            limit,
            refusal,
            ceiling.lineage.hash if ceiling else "",
        )
        judges = [by.lineage, *([ceiling.lineage] if ceiling else [])]
        self.lineage = msgspec.structs.replace(
            below_it, name=self.name, hash=made, judges=(*below_it.judges, *judges)
        )

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """`sampling.n` answers, each the best of n candidates of its own."""
        drawn = await self.draw_candidates(conversation, sampling)
        groups = [drawn[i * self.n : (i + 1) * self.n] for i in range(sampling.n)]
        return tuple(await asyncio.gather(*(self.select_best(conversation, g) for g in groups)))

    async def draw_candidates(
        self, conversation: Conversation, sampling: Sampling
    ) -> tuple[Answer, ...]:
        """All candidates for `sampling.n` answers, in the order of their random streams."""
        warm = sampling.temperature if sampling.temperature > 0 else self.temperature
        many = msgspec.structs.replace(sampling, n=sampling.n * self.n, temperature=warm)
        return await self.model.generate(conversation, many)

    async def select_best(self, conversation: Conversation, candidates: Sequence[Answer]) -> Answer:
        """The best of the candidates, with the ruling that says which and why."""
        scored = await self.score_candidates(conversation, candidates)
        usage = _sum(c.usage for c in candidates)
        calls = len(candidates)
        alive = [k for k, c in enumerate(candidates) if c.failure is None]
        if not alive:
            first = (
                candidates[0] if candidates else Answer.failed("empty", "the model gave no answer")
            )
            return msgspec.structs.replace(first, usage=usage)
        limited = [(k, s) for k, s in enumerate(scored) if k in alive]
        inside = [(k, s[0]) for k, s in limited if self._inside(s)]
        if not inside and self.below is not None:
            why = f"all {len(candidates)} candidates break the ceiling {self.below:g}"
            ruling = Ruling(
                name=self.name,
                stage="output",
                ruling="block",
                reason=why,
                text=self.refusal,
                llm_calls=calls,
            )
            said = Message("assistant", self.refusal)
            return Answer(message=said, finish_reason="abstained", usage=usage, rulings=(ruling,))
        usable = [(k, u) for k, u in inside if u is not None]
        if not usable:
            failed = Answer.failed(
                "unjudged", f"{self.by.name} could judge none of {len(candidates)} candidates"
            )
            return msgspec.structs.replace(failed, usage=usage)
        sign = 1 if self.prefer == "high" else -1
        best, score = max(usable, key=lambda pair: (sign * pair[1], -pair[0]))
        reason = (
            f"candidate {best} of {len(candidates)}, {len(inside)} within the ceiling"
            if self.below is not None
            else f"candidate {best} of {len(candidates)}"
        )
        ruling = Ruling(
            name=self.name,
            stage="output",
            ruling="allow",
            reason=reason,
            score=score,
            llm_calls=calls,
        )
        picked = candidates[best]
        return msgspec.structs.replace(picked, usage=usage, rulings=(*picked.rulings, ruling))

    async def score_candidates(
        self, conversation: Conversation, candidates: Sequence[Answer]
    ) -> list[tuple[float | None, float | None]]:
        """(the choosing judge's number, the ceiling judge's number) of each candidate."""
        blank = Sample(conversation=conversation, source="best-of")
        sample = msgspec.structs.replace(blank, id=content_id(blank))
        responses = [
            Response.of(sample.id, k, self.model.name, c) for k, c in enumerate(candidates)
        ]

        async def one(judge: Judge, response: Response) -> float | None:
            return None if response.failure else read_score(await judge.judge(sample, response))

        chosen = asyncio.gather(*(one(self.by, r) for r in responses))
        if self.ceiling is None:
            by = await chosen
            return list(zip(by, by))
        limit = self.ceiling
        by, cost = await asyncio.gather(chosen, asyncio.gather(*(one(limit, r) for r in responses)))
        return list(zip(by, cost))

    def _inside(self, scores: tuple[float | None, float | None]) -> bool:
        if self.below is None:
            return True
        return scores[1] is not None and scores[1] < self.below

    async def close(self) -> None:
        """Closes the model below."""
        close = getattr(self.model, "close", None)
        if close is not None:
            await close()


def _default_ceiling(judge: Judge) -> float:
    """0 for a cost (above it is unsafe), 0.5 for a probability."""
    return 0.0 if judge.name.startswith("cost") else 0.5


def _sum(usages: object) -> Usage:
    listed = list(usages)  # type: ignore[call-overload]
    return Usage(
        sum(u.prompt_tokens for u in listed),
        sum(u.completion_tokens for u in listed),
        sum(u.cached_tokens for u in listed),
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
    """The best of n answers of `model` by a judge; see `BestOf`.

    `below` without a `ceiling` limits the choosing judge's own number. `prefer` says which end of the judge's scale
    is good where its question does not. `temperature` is used where the call asks for greedy answers.
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
