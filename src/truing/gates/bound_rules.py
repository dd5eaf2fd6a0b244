"""Rules on the upper or lower bound of a rate: `harm.upper < 0.02`.

A rule passes only if the claim "at most" (or "at least") is shown, with every unscored row counted
at its worst. It fails if the opposite is shown; between the two it is inconclusive.
"""

from __future__ import annotations

from typing import Literal, cast

from msgspec.structs import replace

from truing.analysis.claims import Claim
from truing.analysis.rate_claims import RateRule, decide_rate, select_figure
from truing.analysis.rates import QUESTION_ALIASES, Rate
from truing.core.taxonomy import load_taxonomy
from truing.gates.context import GateContext
from truing.gates.rules import GateRule
from truing.gates.verdict import STATUS_OF_DECISION, RuleOutcome


def evaluate_bound_rule(context: GateContext, rule: GateRule) -> RuleOutcome:
    """Checks a rate of the run against a bound rule."""
    question = QUESTION_ALIASES.get(rule.question, rule.question)
    rate = _find_rate(context, rule, question)
    if rate is None:
        return _inconclusive(context, rule, question, _absence_reason(context, rule, question))
    if question == "answers_benign" and "degenerate" not in context.summary.headline:
        # Without such a judge, broken answers would count as answers.
        return _inconclusive(
            context, rule, question, "no judge of degenerate answers: broken ones would count"
        )
    bound = cast(Literal["upper", "lower"], rule.bound)
    claim = decide_rate(
        rate,
        RateRule(bound=bound, limit=rule.limit, figure=rule.figure, allow=rule.allow),
        context.facts_of(rate),
        variant=str(context.run.path),
    )
    figure = select_figure(rate, rule.figure)
    outcome = RuleOutcome(
        rule=rule.text,
        name=rule.name,
        status=STATUS_OF_DECISION[claim.decision],
        reason=claim.reason,
        judge=rate.judge,
        n=rate.n,
        unscored=rate.unscored + rate.unlabelled,
        claims=(claim,),
    )
    if isinstance(figure, str):
        return outcome
    return replace(
        outcome,
        figure=figure.kind,
        estimate=figure.estimate,
        lower=figure.lower,
        upper=figure.upper,
    )


def _inconclusive(context: GateContext, rule: GateRule, question: str, reason: str) -> RuleOutcome:
    claim = Claim(
        claim="at most" if rule.bound == "upper" else "at least",
        variant=str(context.run.path),
        decision="not_shown",
        reason=reason,
        question=question,
        category=rule.category,
        limit=rule.limit,
    )
    return RuleOutcome(
        rule=rule.text, name=rule.name, status="inconclusive", reason=reason, claims=(claim,)
    )


def _find_rate(context: GateContext, rule: GateRule, question: str) -> Rate | None:
    category = None
    if rule.category is not None:
        category = load_taxonomy(context.summary.taxonomy).find(rule.category).id
    return context.summary.find(question, category, rule.judge)


def _absence_reason(context: GateContext, rule: GateRule, question: str) -> str:
    answered = {rate.question for rate in (*context.summary.rates, *context.summary.axes)}
    if question not in answered:
        return f"no judge answered {rule.question!r} in this run"
    if rule.judge is not None:
        return f"{rule.judge} did not answer {rule.question!r} in this run"
    return f"no prompt of category {rule.category!r} was asked"
