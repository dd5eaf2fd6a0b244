"""Rules on the upper or lower bound of a rate: `harm.upper < 0.02`.

A rule passes only if the bound holds with every unscored row counted at its worst. It fails if
the opposite bound shows that it does not hold; between the two it is inconclusive.
"""

from __future__ import annotations

from typing import NamedTuple

from truing.analysis.rates import QUESTION_ALIASES, Rate
from truing.core.taxonomy import load_taxonomy
from truing.gates.context import GateContext, distrust_reason
from truing.gates.rules import GateRule
from truing.gates.verdict import RuleOutcome, Status
from truing.stats.intervals import wilson

_MOST_ROWS_SUGGESTED = 1_000_000


class _Figure(NamedTuple):
    """An estimate of a rate (raw, corrected or transported) with its worst-case bounds."""

    kind: str
    estimate: float | None
    lower: float
    upper: float


def evaluate_bound_rule(context: GateContext, rule: GateRule) -> RuleOutcome:
    """Checks a rate of the run against a bound rule."""
    question = QUESTION_ALIASES.get(rule.question, rule.question)
    rate = _find_rate(context, rule, question)
    if rate is None:
        return RuleOutcome(
            rule=rule.text,
            name=rule.name,
            status="inconclusive",
            reason=_absence_reason(context, rule, question),
        )
    figure = _select_figure(rate, rule.figure)
    if isinstance(figure, str):
        return RuleOutcome(
            rule=rule.text,
            name=rule.name,
            status="inconclusive",
            reason=figure,
            judge=rate.judge,
            n=rate.n,
            unscored=rate.unscored,
        )
    status, reason = _decide(context, rule, rate, figure)
    return RuleOutcome(
        rule=rule.text,
        name=rule.name,
        status=status,
        reason=reason,
        figure=figure.kind,
        judge=rate.judge,
        estimate=figure.estimate,
        lower=figure.lower,
        upper=figure.upper,
        n=rate.n,
        unscored=rate.unscored,
    )


def _decide(
    context: GateContext, rule: GateRule, rate: Rate, figure: _Figure
) -> tuple[Status, str]:
    if rule.bound == "upper":
        holds, broken = figure.upper < rule.limit, figure.lower >= rule.limit
    else:
        holds, broken = figure.lower > rule.limit, figure.upper <= rule.limit
    distrust = distrust_reason(context, rule, figure.kind, rate.judge, rate.struck)
    bounds = (
        f"{figure.kind} [{100 * figure.lower:.1f}, {100 * figure.upper:.1f}] % of {rate.n} rows, "
        "unscored at their worst"
    )
    # An unknown error of the judge keeps a rule from passing, but not from failing. A judge that
    # made the model may do neither.
    if broken and rate.struck is None:
        return "failed", bounds if distrust is None else f"{bounds} (and {distrust})"
    if distrust is not None:
        return "inconclusive", distrust
    if holds:
        return "passed", bounds
    hint = _rows_hint(rule, rate, figure.kind)
    return "inconclusive", f"{bounds}: too few rows to tell{hint}"


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


def _select_figure(rate: Rate, wanted_kind: str) -> _Figure | str:
    """Returns the figure that a rule asks for, or the reason why there is none."""
    if wanted_kind == "corrected" or (wanted_kind == "auto" and rate.corrected is not None):
        corrected = rate.corrected
        if corrected is None:
            return "no labels drawn in this run: see truing label"
        lower, upper = worst_case_bounds(rate, corrected.lower, corrected.upper, corrected.covers)
        return _Figure("corrected", corrected.estimate, lower, upper)
    if wanted_kind == "transported":
        transported = rate.transported
        if transported is None:
            return "no card was given for this judge: see truing card, and cards in the rules"
        if transported.estimate is None or transported.band is None:
            return f"transport is refused: {transported.refused}"
        lower, upper = worst_case_bounds(rate, *transported.band, rate.scored)
        return _Figure("transported", transported.estimate, lower, upper)
    if rate.raw is None:
        return f"none of {rate.n} rows could be scored"
    return _Figure("raw", rate.raw.estimate, *worst_case_raw_bounds(rate))


def worst_case_bounds(rate: Rate, lower: float, upper: float, covers: int) -> tuple[float, float]:
    """Returns bounds over all rows of a rate, from bounds over the `covers` rows that were scored.

    The rows that are not covered count as non-events below, and as events above.
    """
    open_share = max(0, rate.n - covers) / rate.n if rate.n else 1.0
    return lower * (1 - open_share), upper * (1 - open_share) + open_share


def worst_case_raw_bounds(rate: Rate) -> tuple[float, float]:
    """Returns the bounds of a raw rate with its unscored rows at their best and at their worst."""
    if rate.raw is None:
        return 0.0, 1.0
    lower, upper = worst_case_bounds(rate, rate.raw.lower, rate.raw.upper, rate.scored)
    if not rate.unscored:
        return lower, upper
    # Also Wilson's intervals of the completed data, which may be wider. The rows are prompts: n
    # answers to one prompt are not independent.
    rows = min(rate.n, rate.prompts or rate.n)
    best = wilson(rate.events / rate.n * rows, rows).lower
    worst = wilson((rate.events + rate.unscored) / rate.n * rows, rows).upper
    return min(lower, best), max(upper, worst)


def _rows_hint(rule: GateRule, rate: Rate, figure: str) -> str:
    """Returns how many rows might suffice if the rate is as estimated; empty if unknown."""
    if figure != "raw" or rate.raw is None or rate.unscored:
        return ""
    if rule.bound != "upper" or rate.raw.estimate >= rule.limit:
        return ""
    n = rate.scored
    while n < _MOST_ROWS_SUGGESTED and wilson(rate.raw.estimate * n, n).upper >= rule.limit:
        # Steps of a tenth: the suggestion is a rough one, and each step computes an interval.
        n = int(n * 1.1) + 1
    return f"; about {n} would be enough at this rate" if n < _MOST_ROWS_SUGGESTED else ""
