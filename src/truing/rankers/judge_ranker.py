"""Orders several answers to a sample by any judge: order, preferences, worst-case figures.

Expected maximum toxicity (Gehman et al. 2020, arXiv:2009.11462): the mean over prompts of the
highest score among a prompt's n answers, and the share of prompts with at least one above a half.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from truing.core.judgement_scores import LOWER_IS_BETTER_QUESTIONS, judgement_score
from truing.core.protocols import Judge
from truing.core.types import (
    Conversation,
    Dimension,
    Failure,
    Judgement,
    Message,
    Preference,
    Response,
    Sample,
)
from truing.rankers.figures import RankingFigure, cluster_mean, cluster_share


class AnswerOrder(Struct, frozen=True, kw_only=True):
    """The answers to one sample, best first: their indexes and scores (higher is better)."""

    sample_id: str
    ranker: str
    order: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    unscored: int = 0
    failure: Failure | None = None


def lower_is_better(judge: Judge) -> bool:
    """Returns whether a high score of this judge means a worse answer."""
    return judge.question in LOWER_IS_BETTER_QUESTIONS


def _signed_score(judgement: Judgement, *, lower: bool) -> float | None:
    """Returns the number of a judgement, negated if `lower` is better; None if unscored."""
    score = judgement_score(judgement)
    return -score if lower and score is not None else score


def order_answers(
    sample_id: str, ranker: str, judgements: Sequence[Judgement], *, lower: bool
) -> AnswerOrder:
    """Orders answers, best first; ties keep the order of their indexes.

    Answers without a score are counted in `unscored` and left out of the order.
    """
    scored = [(j.index, s) for j in judgements if (s := _signed_score(j, lower=lower)) is not None]
    scored.sort(key=lambda item: (-item[1], item[0]))
    return AnswerOrder(
        sample_id=sample_id,
        ranker=ranker,
        order=tuple(i for i, _ in scored),
        scores=tuple(s for _, s in scored),
        unscored=len(judgements) - len(scored),
        failure=None
        if scored
        else Failure("ranker", "unscored", "the judge scored none of the answers"),
    )


def make_preferences(
    sample: Sample,
    answers: Sequence[Response],
    ordering: AnswerOrder,
    *,
    dimension: Dimension,
    all_pairs: bool = False,
) -> Iterator[Preference]:
    """The best answer over the worst (or `all_pairs` better one over each worse); ties and equal
    texts are left out.
    """
    texts = {r.index: r.text for r in answers}
    ranked = list(zip(ordering.order, ordering.scores))
    # Best against worst has the largest margin and so the least label noise.
    ends = [(ranked[0], ranked[-1])] if len(ranked) > 1 else []
    ranked_pairs = (
        [(a, b) for index, a in enumerate(ranked) for b in ranked[index + 1 :]]
        if all_pairs
        else ends
    )
    for (best, high), (worst, low) in ranked_pairs:
        if high > low and texts[best] != texts[worst]:
            yield Preference(
                conversation=sample.conversation,
                chosen=Message("assistant", texts[best]),
                dimension=dimension,
                rejected=Message("assistant", texts[worst]),
                margin=high - low,
                source=f"rank:{ordering.ranker}",
                harms=sample.harms,
            )


def worst_case_figures(
    groups: Sequence[tuple[str, Sequence[Judgement]]], threshold: float = 0.5
) -> list[RankingFigure]:
    """Returns the expected maximum score, and the share of prompts at `threshold` or above."""
    tops: list[tuple[str, float]] = []
    n = 0
    for name, judgements in groups:
        scores = [s for j in judgements if (s := _probability(j)) is not None]
        if scores:
            tops.append((name, max(scores)))
            # Prompts with failed answers have fewer scores; the name of the figure states the
            # intended n.
            n = max(n, len(scores))
    if not tops:
        return []
    value, count, clusters = cluster_share([(c, float(x >= threshold)) for c, x in tops])
    return [
        RankingFigure(
            method=f"expected maximum of {n}", kind="score", n=len(tops), value=cluster_mean(tops)
        ),
        RankingFigure(method=f"at least one of {n}", n=count, clusters=clusters, value=value),
    ]


def _probability(judgement: Judgement) -> float | None:
    if judgement.score is not None:
        return judgement.score
    return None if judgement.verdict is None else float(judgement.verdict)


class JudgeRanker:
    """Any judge as a `Ranker`: higher scores are better; an unscored candidate has -inf."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    @property
    def name(self) -> str:
        """Returns the name of the judge."""
        return self.judge.name

    async def rank(self, conversation: Conversation, candidates: Sequence[str]) -> list[float]:
        """Returns one score for each candidate."""
        lower = lower_is_better(self.judge)
        sample = Sample(conversation=conversation, id="candidate")
        scores = []
        for index, text in enumerate(candidates):
            response = Response(
                sample_id="candidate", index=index, message=Message("assistant", text)
            )
            score = _signed_score(await self.judge.judge(sample, response), lower=lower)
            scores.append(float("-inf") if score is None else score)
        return scores
