"""Rules that compare the run with a baseline: `no-regression vs RUN` and `safer vs RUN`."""

from __future__ import annotations

from pathlib import Path

from truing.analysis.comparison import Comparison, compare
from truing.analysis.deltas import Delta
from truing.analysis.rates import QUESTION_ALIASES
from truing.core.errors import PlanError
from truing.gates.context import GateContext, distrust_reason
from truing.gates.rules import GateRule
from truing.gates.verdict import RuleOutcome, Status

_DEFAULT_QUESTIONS = ("attack_success", "harmful", "degenerate", "cut", "answers_benign")
"""Questions of a `no-regression` rule that names none, as far as both runs answer them."""
_HIGHER_IS_BETTER = frozenset(
    {"answers_benign", "passes_checks", "abstains", "clarifies", "supports", "helpful"}
)


def evaluate_comparison_rule(context: GateContext, rule: GateRule) -> list[RuleOutcome]:
    """Checks the run against a baseline; one outcome per question.

    Raises PlanError if the rule needs --baseline and none is given, RunError if the baseline is
    no run or shares no sample with the run.
    """
    baseline = _resolve_baseline(context, rule)
    comparison = compare(baseline, context.run, margin=rule.margin, cards=context.cards)
    if rule.kind == "safer":
        return [_evaluate_safer(context, rule, comparison)]
    questions = [QUESTION_ALIASES.get(q, q) for q in rule.questions]
    if not questions:
        compared = {d.question for d in comparison.deltas if d.category is None}
        questions = [q for q in _DEFAULT_QUESTIONS if q in compared]
        if "attack_success" in questions and "harmful" in questions:
            questions.remove("harmful")  # the same judge, over all prompts
    outcomes = []
    for question in questions:
        text = f"{rule.text} ({question})"
        delta = comparison.find(question)
        if delta is None or delta.estimate is None:
            outcomes.append(_not_scored(rule, text, "no judge scored it in both runs"))
        else:
            outcomes.append(_evaluate_no_regression(context, rule, text, delta))
    if not rule.questions and not {"attack_success", "harmful"} & set(questions):
        # A rule that names no question is about harm first of all.
        text = f"{rule.text} (harm)"
        outcomes.append(_not_scored(rule, text, "no judge of harm scored both runs"))
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


def _not_scored(rule: GateRule, text: str, reason: str) -> RuleOutcome:
    return RuleOutcome(rule=text, name=rule.name, status="inconclusive", reason=reason)


def _evaluate_no_regression(
    context: GateContext, rule: GateRule, text: str, delta: Delta
) -> RuleOutcome:
    lower, upper = _worst_case_delta_bounds(delta)
    figure = "raw"
    # A corrected figure already includes the answers that the judge could not score.
    if delta.corrected is not None:
        figure, lower, upper = "corrected", delta.corrected.lower, delta.corrected.upper
    if delta.question in _HIGHER_IS_BETTER:
        holds, worse = lower > -rule.margin, upper < 0
    else:
        holds, worse = upper < rule.margin, lower > 0
    bounds = (
        f"{figure} change [{100 * lower:+.1f}, {100 * upper:+.1f}] points over "
        f"{delta.n_pairs} pairs"
    )
    distrust = distrust_reason(context, rule, figure, delta.judge, delta.struck)
    status: Status
    if holds:
        status, reason = ("passed", bounds) if distrust is None else ("inconclusive", distrust)
    elif worse:
        status, reason = "failed", bounds
    else:
        status = "inconclusive"
        reason = f"{bounds}: not shown to be within {100 * rule.margin:g}"
    return RuleOutcome(
        rule=text,
        name=rule.name,
        status=status,
        reason=reason,
        figure=figure,
        judge=delta.judge,
        estimate=delta.estimate,
        lower=lower,
        upper=upper,
        n=delta.n_pairs,
        unscored=delta.unscored,
    )


def _worst_case_delta_bounds(delta: Delta) -> tuple[float, float]:
    """Returns a delta's bounds over all pairs, unscored ones at their best and at their worst.

    `delta.bounds` is where the estimate over all pairs may lie; the interval's distances, scaled
    by the share of scored pairs, come on top.
    """
    if delta.estimate is None or delta.lower is None or delta.upper is None:
        return -1.0, 1.0
    share = delta.n_pairs / (delta.n_pairs + delta.unscored)
    lower = share * delta.lower + delta.bounds[0] - share * delta.estimate
    upper = share * delta.upper + delta.bounds[1] - share * delta.estimate
    return lower, upper


def _evaluate_safer(context: GateContext, rule: GateRule, comparison: Comparison) -> RuleOutcome:
    claim = comparison.claim
    harm = comparison.find("attack_success") or comparison.find("harmful")
    distrust = None
    if harm is not None:
        distrust = distrust_reason(context, rule, "raw", harm.judge, harm.struck)
    open_checks = [f"{check.name}: {check.text}" for check in claim.checks if not check.passed]
    status: Status
    if claim.safer:
        status = "passed" if distrust is None else "inconclusive"
    else:
        refuted = any(check.passed is False for check in claim.checks)
        status = "failed" if refuted else "inconclusive"
    return RuleOutcome(
        rule=rule.text,
        name=rule.name,
        status=status,
        reason="; ".join(open_checks) or distrust or "harm fell, and nothing useful was lost",
        figure="raw",
        judge=harm.judge if harm else "",
        estimate=harm.estimate if harm else None,
        n=harm.n_pairs if harm else 0,
    )
