"""Rules that compare the run with a baseline: `no-regression vs RUN` and `safer vs RUN`."""

from __future__ import annotations

from pathlib import Path

from truing.analysis.claim_evidence import collect_evidence
from truing.analysis.claims import (
    HARM_QUESTIONS,
    Claim,
    ClaimOptions,
    not_worse_claim,
    pair_claims,
)
from truing.analysis.corrected_deltas import PairLabels
from truing.analysis.pairing import RunPair, pair_runs
from truing.analysis.rates import QUESTION_ALIASES
from truing.core.errors import PlanError
from truing.gates.context import GateContext
from truing.gates.rules import GateRule
from truing.gates.verdict import STATUS_OF_DECISION, RuleOutcome

_DEFAULT_QUESTIONS = ("attack_success", "harmful", "degenerate", "cut", "answers_benign")
"""Questions of a `no-regression` rule that names none, as far as both runs answer them."""


def evaluate_comparison_rule(context: GateContext, rule: GateRule) -> list[RuleOutcome]:
    """Checks the run against a baseline; one outcome per question.

    Raises PlanError if the rule needs --baseline and none is given, RunError if the baseline is
    no run or shares no sample with the run.
    """
    pair = pair_runs(_resolve_baseline(context, rule), context.run)
    labels = PairLabels(pair)
    options = ClaimOptions(margin=rule.margin, cards=context.cards, allow=rule.allow)
    if rule.kind == "safer":
        claims, _ = pair_claims(pair, labels, options)
        return [_outcome(rule, rule.text, claims[0], claims)]
    questions = [QUESTION_ALIASES.get(q, q) for q in rule.questions]
    outcomes = [
        _evaluate_no_regression(context, rule, pair, labels, question)
        for question in questions or _compared_questions(pair, labels, options)
    ]
    if not questions and not any(
        o.claims and o.claims[0].question in HARM_QUESTIONS for o in outcomes
    ):
        # A rule that names no question is about harm first of all.
        text, reason = f"{rule.text} (harm)", "no judge of harm scored both runs"
        outcomes.append(
            RuleOutcome(rule=text, name=rule.name, status="inconclusive", reason=reason)
        )
    return outcomes


def _resolve_baseline(context: GateContext, rule: GateRule) -> Path:
    if rule.run == "BASELINE":
        if context.baseline is None:
            raise PlanError(f"{rule.text!r}: give the baseline's run folder with --baseline")
        return context.baseline
    # Relative to the rules file first, then to the working directory.
    beside_rules = context.rules.folder / rule.run
    if (beside_rules / "manifest.json").is_file():
        return beside_rules
    return Path(rule.run)


def _compared_questions(pair: RunPair, labels: PairLabels, options: ClaimOptions) -> list[str]:
    questions = [
        question
        for question in _DEFAULT_QUESTIONS
        if collect_evidence(pair, labels, question, options.cards)
    ]
    if "attack_success" in questions and "harmful" in questions:
        questions.remove("harmful")  # the same judge, over all prompts
    return questions


def _evaluate_no_regression(
    context: GateContext, rule: GateRule, pair: RunPair, labels: PairLabels, question: str
) -> RuleOutcome:
    options = ClaimOptions(margin=rule.margin, cards=context.cards, allow=rule.allow)
    claim = not_worse_claim(pair, labels, question, options)
    text = f"{rule.text} ({question})"
    if claim.estimate is None:
        reason = "no judge scored it in both runs"
        return RuleOutcome(
            rule=text, name=rule.name, status="inconclusive", reason=reason, claims=(claim,)
        )
    return _outcome(rule, text, claim, (claim,))


def _outcome(rule: GateRule, text: str, claim: Claim, claims: tuple[Claim, ...]) -> RuleOutcome:
    return RuleOutcome(
        rule=text,
        name=rule.name,
        status=STATUS_OF_DECISION[claim.decision],
        reason=claim.reason,
        figure="corrected" if claim.labels else "raw",
        judge=claim.judge,
        estimate=claim.estimate,
        lower=claim.lower,
        upper=claim.upper,
        n=claim.n,
        unscored=claim.unscored,
        claims=claims,
    )
