"""`panel:majority|any|all|mean`: several judges of one question, as one judge.

A panel is *unscored* if the missing votes could still change its outcome; this holds for a
majority, for "any" and for "all". A mean needs every member. Panels of judges: Verga et al. 2024
(arXiv 2404.18796).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from truing.core.errors import SpecError, did_you_mean
from truing.core.flagged_categories import (
    DEFAULT_CATEGORY_THRESHOLD,
    category_thresholds,
    flag_categories,
)
from truing.core.lineage import digest
from truing.core.protocols import Judge
from truing.core.types import Judgement, Lineage, Response, Sample
from truing.judges.verdicts import check_failed_response, make_judgement, make_unscored
from truing.specs.resolve import Args

RULES = ("majority", "any", "all", "mean")
# The largest float below it: a probability that does not assign the category.
_BELOW_THRESHOLD = math.nextafter(DEFAULT_CATEGORY_THRESHOLD, 0.0)


class PanelJudge:
    """Members must answer the same question. `score` is the mean of the members' scores (or
    votes).
    """

    def __init__(self, rule: str, members: Sequence[Judge], *, threshold: float = 0.5) -> None:
        if rule not in RULES:
            raise SpecError(f"panel: there is no rule {rule!r}{did_you_mean(rule, RULES)}")
        if len(members) < 2:
            raise SpecError("panel: needs two members or more, as j1=(...),j2=(...)")
        questions = sorted({m.question for m in members})
        if len(questions) > 1:
            raise SpecError(f"panel: members answer different questions: {', '.join(questions)}")
        self._rule = rule
        self._members = tuple(members)
        self._threshold = threshold
        self.question = members[0].question
        self.name = f"panel:{rule}({'+'.join(m.name for m in members)})"
        self.lineage = Lineage(
            name=self.name,
            hash=digest(
                "panel/1", rule, str(threshold), *(m.lineage.hash or m.name for m in members)
            ),
            # Members are part of the lineage: a model trained on one of them may not be measured
            # by the panel.
            judges=tuple(m.lineage for m in members),
            licence="; ".join(sorted({m.lineage.licence for m in members if m.lineage.licence})),
        )

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """Asks all members concurrently and combines their verdicts."""
        failed = check_failed_response(self, sample, response)
        if failed is not None:
            return failed
        judgements = await asyncio.gather(*(m.judge(sample, response) for m in self._members))
        votes = [g.verdict for g in judgements]
        scores = [
            g.score if g.score is not None else float(g.verdict)
            for g in judgements
            if g.verdict is not None
        ]
        verdict = self._decide(votes, scores)
        votes_text = ", ".join(
            f"{m.name}: {_vote_text(v)}" for m, v in zip(self._members, votes, strict=True)
        )
        if verdict is None:
            return make_unscored(self, sample, response, "open", votes_text)
        score = sum(scores) / len(scores)
        return make_judgement(
            self,
            sample,
            response,
            verdict,
            score=score,
            harms=self._combine_harms(judgements),
            rationale=votes_text,
        )

    def _combine_harms(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Returns the highest probability of each category among the members.

        It is clamped to at least 0.5 if any member assigns the category, else to below 0.5. Each
        member has thresholds of its own, and the panel has none: readers of its judgement apply
        0.5.
        """
        harms: dict[str, float] = {}
        for member, judgement in zip(self._members, judgements, strict=True):
            thresholds = category_thresholds(member)
            flagged = flag_categories(judgement.harms, thresholds)
            for category, probability in judgement.harms.items():
                if category in flagged:
                    probability = max(probability, DEFAULT_CATEGORY_THRESHOLD)
                else:
                    probability = min(probability, _BELOW_THRESHOLD)
                # Members may know different categories; one that knows none must not dilute the
                # others.
                harms[category] = max(probability, harms.get(category, 0.0))
        return harms

    def _decide(self, votes: list[bool | None], scores: list[float]) -> bool | None:
        yes_votes, no_votes, missing = votes.count(True), votes.count(False), votes.count(None)
        if self._rule == "any":
            return True if yes_votes else None if missing else False
        if self._rule == "all":
            return False if no_votes else None if missing else True
        if self._rule == "mean":
            return None if missing else sum(scores) / len(scores) >= self._threshold
        # As if all missing votes went to the other side.
        if yes_votes > no_votes + missing:
            return True
        return False if no_votes > yes_votes + missing else None


def _vote_text(vote: bool | None) -> str:
    return "unscored" if vote is None else "yes" if vote else "no"


def build(args: Args) -> PanelJudge:
    """`panel:majority,j1=(...),j2=(...),...`; any keys that hold judge specs are members, in
    order.
    """
    threshold = args.number("threshold", 0.5)
    keys = [k for k in args.spec.args if k != "threshold"]
    members = [args.required(key, "judge") for key in keys]
    return PanelJudge(args.name or "majority", members, threshold=threshold)
