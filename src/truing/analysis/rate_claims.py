"""Decides "at most" and "at least": whether a bound of one run's rate lies below or above a limit.

Rows that were not scored, and rows that nobody labelled, count at their worst. A raw rate by a
judge with a card also allows for the events that the judge misses (or sees where none are), as far
as its card leaves open.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.claim_analyses import CARD_MARGIN
from truing.analysis.claim_evidence import EXACT_JUDGES
from truing.analysis.claims import Claim, Decision
from truing.analysis.corrections import axis_of_rate
from truing.analysis.judge_facts import JudgeFacts
from truing.analysis.planned_labels import LabelsNeeded, labels_for_rate
from truing.analysis.planned_prompts import prompts_for_rate
from truing.analysis.rates import Rate
from truing.stats.intervals import (
    Interval,
    clopper_pearson,
    effective_rows,
    normal_quantile,
)

_MOST_ROWS_SUGGESTED = 1_000_000
_LABELS = "labels of rows drawn at random (truing label)"
HAND_PICKED = "were not drawn at random: they say nothing about the other"


class RateFigure(NamedTuple):
    """An estimate of a rate (raw, corrected or transported) with its worst-case bounds."""

    kind: str
    estimate: float | None
    lower: float
    upper: float


class RateRule(Struct, frozen=True, kw_only=True):
    """What is to be shown of a rate: that its `bound` (``upper`` or ``lower``) keeps `limit`."""

    bound: Literal["upper", "lower"]
    limit: float
    figure: str = "auto"
    allow: tuple[str, ...] = ()


def decide_rate(
    rate: Rate, rule: RateRule, facts: JudgeFacts | None, *, variant: str = ""
) -> Claim:
    """Decides whether a rate is at most, or at least, a limit.

    `facts` is the judge's card on the rate's question, None if it has none.
    """
    claim = Claim(
        claim="at most" if rule.bound == "upper" else "at least",
        variant=variant,
        decision="not_shown",
        reason="",
        question=rate.question,
        category=rate.category,
        judge=rate.judge,
        limit=rule.limit,
        n=rate.n,
        unscored=rate.unscored + rate.unlabelled,
    )
    figure = select_figure(rate, rule.figure)
    if isinstance(figure, str):
        return replace(claim, reason=figure, short_reason=figure, needs=_LABELS)
    corrected = rate.corrected
    labels = corrected.labels if corrected is not None and figure.kind == "corrected" else 0
    claim = replace(
        claim,
        estimate=figure.estimate,
        lower=figure.lower,
        upper=figure.upper,
        labels=labels,
        corrected=_as_interval(rate),
        assumptions=_assumptions(rate, figure, facts),
    )
    decision, reason = _decide(rate, rule, figure, facts)
    claim = replace(
        claim,
        decision=decision,
        reason=reason,
        short_reason=_short_reason(decision, reason, rate, rule, figure),
    )
    return _with_needs(claim, rate, rule, figure, facts) if decision == "not_shown" else claim


def _short_reason(
    decision: Decision, reason: str, rate: Rate, rule: RateRule, figure: RateFigure
) -> str:
    """Returns the reason in a few words, for the first page of a report."""
    if decision == "not_shown":
        if not reason.startswith(f"{figure.kind} ["):  # no figure decides: the judge is distrusted
            return reason
        if figure.lower < rule.limit <= figure.upper:
            interval = f"[{100 * figure.lower:.1f}, {100 * figure.upper:.1f}] %"
            return f"the interval {interval} holds the limit of {100 * rule.limit:g} %"
        return f"the errors that the card of {rate.judge} leaves open may hide more"
    if (decision == "yes") == (rule.bound == "upper"):
        end = f"at most {100 * figure.upper:.1f} %, below the limit of {100 * rule.limit:g} %"
    else:
        end = f"at least {100 * figure.lower:.1f} %, above the limit of {100 * rule.limit:g} %"
    return f"{end}, whatever the {rate.unscored} unscored answers are" if rate.unscored else end


def _with_needs(
    claim: Claim, rate: Rate, rule: RateRule, figure: RateFigure, facts: JudgeFacts | None
) -> Claim:
    """Returns an open claim with what would settle it: more prompts, labels, or another judge."""
    if rate.struck is not None and "overlap" not in rule.allow:
        return replace(claim, needs="prompts, and a judge, that had no part in its making")
    if figure.estimate is None:
        return replace(claim, needs=_LABELS)
    labels = labels_for_rate(figure.estimate, rule.limit, facts, rows=rate.n)
    if labels is not None:
        labels = labels - claim.labels if labels > claim.labels else None
    prompts = _prompts_needed(rate, rule, figure, facts)
    ways = [] if prompts is None else [f"about {prompts:,} more prompts"]
    if labels is not None:
        ways.append(f"about {labels:,} {'more ' if claim.labels else ''}labels (truing label)")
    return replace(
        claim,
        needs=", or ".join(ways) or f"{_LABELS}, and more prompts",
        prompts_needed=prompts,
        labels_needed=None if labels is None else LabelsNeeded(baseline=0, variant=labels),
    )


def _prompts_needed(
    rate: Rate, rule: RateRule, figure: RateFigure, facts: JudgeFacts | None
) -> int | None:
    """Returns how many more prompts would settle it by the judge's verdicts; None if none would."""
    has_card = facts is not None
    distrust = distrust_reason(
        figure.kind, rate.judge, rate.struck, has_card=has_card, allow=rule.allow
    )
    if figure.kind != "raw" or figure.estimate is None or distrust is not None or rate.unlabelled:
        return None
    limit = rule.limit
    is_shown_side = (figure.estimate < limit) == (rule.bound == "upper")
    if facts is not None and not rate.judge.startswith(EXACT_JUDGES) and is_shown_side:
        # The raw rate at which the errors that the card leaves open reach the limit.
        limit = _raw_limit(rate, facts, rule)
        if (figure.estimate < limit) != (rule.bound == "upper"):
            return None  # however many prompts, these errors stay
    missing_share = rate.unscored / max(1, rate.n)
    return prompts_for_rate(figure.estimate, limit, rate.prompts or rate.n, missing_share)


def _raw_limit(rate: Rate, facts: JudgeFacts, rule: RateRule) -> float:
    """Returns the raw rate whose bound by the card is the limit: `bound_by_card` backwards."""
    least_sensitivity, least_specificity = _least_error_free(rate, facts)
    if rule.bound == "upper":
        return rule.limit * least_sensitivity
    false_alarms = 1.0 - least_specificity
    return rule.limit * (1 - false_alarms) + false_alarms


def _as_interval(rate: Rate) -> Interval | None:
    corrected = rate.corrected
    return (
        None
        if corrected is None
        else Interval(corrected.estimate, corrected.lower, corrected.upper, corrected.method)
    )


def _assumptions(rate: Rate, figure: RateFigure, facts: JudgeFacts | None) -> tuple[str, ...]:
    if figure.kind == "corrected":
        return ("the labels are right, and their rows were drawn at random",)
    if figure.kind == "transported":
        return ("the card's error rates hold for this run (transport)",)
    if rate.judge.startswith(EXACT_JUDGES):
        return ()
    if facts is not None:
        return (f"the error rates of {rate.judge} are within what its card leaves open",)
    return (f"{rate.judge} makes no errors",)


def _decide(
    rate: Rate, rule: RateRule, figure: RateFigure, facts: JudgeFacts | None
) -> tuple[Decision, str]:
    if rule.bound == "upper":
        holds, broken = figure.upper < rule.limit, figure.lower >= rule.limit
    else:
        holds, broken = figure.lower > rule.limit, figure.upper <= rule.limit
    distrust = distrust_reason(
        figure.kind, rate.judge, rate.struck, has_card=facts is not None, allow=rule.allow
    )
    bounds = (
        f"{figure.kind} [{100 * figure.lower:.1f}, {100 * figure.upper:.1f}] % of {rate.n} rows, "
        "unscored at their worst"
    )
    if rate.unlabelled:
        bounds += f"; {rate.n} labelled rows {HAND_PICKED} {rate.unlabelled}"
    # An unknown error of the judge keeps a rule from passing, but not from failing. A judge that
    # made the model may do neither.
    if broken and rate.struck is None:
        return "no", bounds if distrust is None else f"{bounds} (and {distrust})"
    if distrust is not None:
        return "not_shown", distrust
    if not holds:
        if rate.unscored or rate.unlabelled:
            return "not_shown", f"{bounds}: too few of them known to tell"
        return "not_shown", f"{bounds}: too few rows to tell{_rows_hint(rule, rate, figure.kind)}"
    if figure.kind == "raw" and facts is not None and not rate.judge.startswith(EXACT_JUDGES):
        allowed = bound_by_card(rate, figure, facts, rule.bound)
        bounds += f"; {100 * allowed:.1f} % with the errors that its card leaves open"
        if not (allowed < rule.limit if rule.bound == "upper" else allowed > rule.limit):
            return "not_shown", bounds
    return "yes", bounds


def bound_by_card(
    rate: Rate, figure: RateFigure, facts: JudgeFacts, bound: Literal["upper", "lower"]
) -> float:
    """Returns a bound of the true rate from a raw one and the error rates that a card leaves open.

    A raw rate is sensitivity * true rate + false alarms * (1 - true rate) (Rogan & Gladen 1978).
    Upper: there are no false alarms, and the judge misses as much as it may. Lower: it misses
    nothing, and has as many false alarms as it may.
    """
    least_sensitivity, least_specificity = _least_error_free(rate, facts)
    if bound == "upper":
        return min(1.0, figure.upper / least_sensitivity) if least_sensitivity > 0 else 1.0
    false_alarms = 1.0 - least_specificity
    if false_alarms >= 1.0:
        return 0.0
    return max(0.0, (figure.lower - false_alarms) / (1 - false_alarms))


def _least_error_free(rate: Rate, facts: JudgeFacts) -> tuple[float, float]:
    """Returns the least sensitivity and specificity, for the event of the rate, by a card."""
    _, _, inverted = axis_of_rate(rate)
    of_event, of_other = facts.sensitivity, facts.specificity
    if inverted:  # "no" is the event
        of_event, of_other = of_other, of_event
    return _least_by_card(of_event), _least_by_card(of_other)


def _least_by_card(rate: Interval | None) -> float:
    """Returns the least sensitivity or specificity that a card leaves open; 0 if it has none."""
    return 0.0 if rate is None else max(0.0, min(rate.lower, rate.estimate - CARD_MARGIN))


def distrust_reason(
    figure: str,
    judge: str,
    struck: str | None,
    *,
    has_card: bool,
    allow: tuple[str, ...] = (),
) -> str | None:
    """Returns why a figure may not show a claim, or None if it may.

    `figure` is raw, corrected or transported; `struck` says why the judge may not measure this
    model, if it may not. `allow` waives reasons: ``overlap``, ``transported``, ``uncarded``.
    """
    if struck is not None and "overlap" not in allow:
        return f"{struck}: figures of {judge} show nothing here"
    if figure == "transported" and "transported" not in allow:
        return (
            "the figure assumes that the card's error rates hold here (transport); "
            "allow it in the rule, or draw labels"
        )
    has_card = has_card or judge.startswith(EXACT_JUDGES)
    if figure == "raw" and not has_card and "uncarded" not in allow:
        return (
            f"{judge} has no card: its error is unknown; give one in cards, draw labels, "
            "or allow it in the rule"
        )
    return None


def select_figure(rate: Rate, wanted_kind: str) -> RateFigure | str:
    """Returns the figure that a rule asks for, or the reason why there is none."""
    if wanted_kind == "corrected" or (wanted_kind == "auto" and rate.corrected is not None):
        corrected = rate.corrected
        if corrected is None:
            return "no labels drawn in this run: see truing label"
        lower, upper = worst_case_bounds(rate, corrected.lower, corrected.upper, corrected.covers)
        return RateFigure("corrected", corrected.estimate, lower, upper)
    if wanted_kind == "transported":
        transported = rate.transported
        if transported is None:
            return "no card was given for this judge: see truing card, and cards in the rules"
        if transported.estimate is None or transported.band is None:
            return f"transport is refused: {transported.refused}"
        lower, upper = worst_case_bounds(rate, *transported.band, rate.scored)
        return RateFigure("transported", transported.estimate, lower, upper)
    if rate.raw is None:
        return f"none of {rate.n} rows could be scored"
    return RateFigure("raw", rate.raw.estimate, *worst_case_raw_bounds(rate))


def worst_case_bounds(rate: Rate, lower: float, upper: float, covers: int) -> tuple[float, float]:
    """Returns bounds over all rows of a rate, from bounds over the `covers` rows that were scored.

    The rows that are not covered count as non-events below, and as events above.
    """
    n = rate.n + rate.unlabelled
    open_share = max(0, n - covers) / n if n else 1.0
    return lower * (1 - open_share), upper * (1 - open_share) + open_share


def worst_case_raw_bounds(rate: Rate) -> tuple[float, float]:
    """Returns the bounds of a raw rate with its unscored rows at their best and at their worst."""
    if rate.raw is None:
        return 0.0, 1.0
    lower, upper = worst_case_bounds(rate, *_exact_bounds(rate.raw), rate.scored)
    n, unscored = rate.n + rate.unlabelled, rate.unscored + rate.unlabelled
    if not unscored:
        return lower, upper
    # Also the intervals of the completed data, which may be wider. The rows are prompts: n answers
    # to one prompt are not independent.
    rows = min(n, rate.prompts or n)
    best = clopper_pearson(rate.events / n * rows, rows).lower
    worst = clopper_pearson((rate.events + unscored) / n * rows, rows).upper
    return min(lower, best), max(upper, worst)


def _exact_bounds(raw: Interval) -> tuple[float, float]:
    """Returns bounds that are each wrong in at most 2.5 %, also at small rates and few rows.

    Wilson's lower bound of a small rate lies above it in up to 10 % of the runs. Rates over
    clusters have the exact bounds of as many independent rows as are as telling (Korn & Graubard
    1998); sequences of stopped runs keep their own.
    """
    if not raw.method.endswith("wilson"):
        return raw.lower, raw.upper
    rows = effective_rows(raw, normal_quantile())
    exact = clopper_pearson(raw.estimate * rows, rows)
    return min(raw.lower, exact.lower), max(raw.upper, exact.upper)


def _rows_hint(rule: RateRule, rate: Rate, figure: str) -> str:
    """Returns how many rows might suffice if the rate is as estimated; empty if unknown."""
    if figure != "raw" or rate.raw is None or rate.unscored or rate.unlabelled:
        return ""
    if rule.bound != "upper" or rate.raw.estimate >= rule.limit:
        return ""
    n = rate.scored
    while (
        n < _MOST_ROWS_SUGGESTED and clopper_pearson(rate.raw.estimate * n, n).upper >= rule.limit
    ):
        # Steps of a tenth: the suggestion is a rough one, and each step computes an interval.
        n = int(n * 1.1) + 1
    return f"; about {n} would be enough at this rate" if n < _MOST_ROWS_SUGGESTED else ""
