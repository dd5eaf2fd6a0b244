"""Decides whether a change of one rate is shown: by labels, or by verdicts that stand every test.

With labels of both runs the corrected change decides. Without, the judge's verdicts decide under
the assumption that the judge errs alike on both models, and only if every test of that assumption
that the runs allow shows the same:

- the *twins*: the change on harmful prompts net of the change on benign ones, where what the judge
  calls harmful are its false alarms (a negative control, Lipsitch et al. 2010, Epidemiology
  21:383);
- a *second judge* that is unrelated to the first and may measure both models;
- the judge's *card*: error rates of the two models that differ as far as the card leaves open.

Twins say nothing about harm that a judge misses; so without a second judge or a card the judge's
error is unknown, and nothing is shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.claim_evidence import Bounds, ChangeEvidence, PairedPrompts
from truing.analysis.judge_facts import JudgeFacts
from truing.analysis.planned_labels import LEVEL, LabelsNeeded, describe_needs, labels_needed

CARD_MARGIN = 0.05
"""How far a judge's sensitivity or specificity on a model may at least lie from the card's.

As wide as the band of transported rates; see `transport`. A card's interval that reaches further
counts instead.
"""
# A convention: with less between sensitivity and false alarms, one point of the raw change would be
# more than ten points of the true one.
_LEAST_YOUDEN = 0.1
_SMALLEST_P = 1e-9  # where the search of `one_sided_p` begins
BoundsAtLevel = Callable[[float], Bounds]


class Analysis(Struct, frozen=True):
    """One way to estimate the change: `bounds(level)` are the ends of its interval.

    `text` and the figures complete "..., but" where it does not show what the first one does.
    """

    name: str
    estimate: float
    bounds: BoundsAtLevel
    text: str

    def negated(self) -> Analysis:
        """Returns the analysis of minus the change."""

        def negated_bounds(level: float) -> Bounds:
            lower, upper = self.bounds(level)
            return -upper, -lower

        return Analysis(self.name, -self.estimate, negated_bounds, self.text)


class ChangeDecision(Struct, frozen=True, kw_only=True):
    """The decision on "the change lies below `limit`".

    Attributes:
        passed: True if shown, False if the opposite is shown, None if neither.
        figure: ``corrected`` or ``raw``: what decided.
        estimate, lower, upper: of that figure, unscored answers at their worst.
        p: largest one-sided p value over all analyses.
        text: figures and reason in words.
        assumptions: what the decision rests on.
        labels: number of labels that it rests on.
        n, unscored: number of prompts in both runs, and of their answers without a verdict.
        needs: labels that would settle it, if that is known.
        advice: what would settle it, in words; empty if it is settled.
    """

    passed: bool | None
    figure: str
    estimate: float | None
    lower: float | None
    upper: float | None
    p: float | None
    text: str
    judge: str = ""
    assumptions: tuple[str, ...] = ()
    labels: int = 0
    n: int = 0
    unscored: int = 0
    needs: LabelsNeeded | None = None
    advice: str = ""


class ChangeRule(Struct, frozen=True, kw_only=True):
    """What is to be shown: that a rate rose by less than `limit`.

    Attributes:
        limit: as a share; 0 for "fell", negative for "fell by more than".
        higher_is_better: the rate is good, and "fell by less than `limit`" is decided.
        about_harm: the judge's error has to be known.
        allow: ``uncarded`` or ``overlap`` to waive a test.
        not_shown: what the figures leave open, in words.
        blocked: why nothing can be decided; empty if something can.
    """

    limit: float = 0.0
    higher_is_better: bool = False
    about_harm: bool = False
    allow: tuple[str, ...] = ()
    not_shown: str = ""
    blocked: str = ""


def decide_change(evidence: Sequence[ChangeEvidence], rule: ChangeRule) -> ChangeDecision:
    """Decides a rule from the evidence of `collect_evidence`, the quoted judge's first."""
    first = evidence[0]
    analyses, assumptions, missing = _analyses(evidence, rule)
    missing = rule.blocked or missing
    main = analyses[0]
    bounds = main.bounds(LEVEL)
    labels = sum(first.n_labels) if main.name == "corrected" else 0
    figures = points_with_interval(main.estimate, *bounds)
    by_whom = f"corrected by {labels} labels" if labels else f"by {first.judge}"
    text = f"{figures} {by_whom}" if rule.about_harm or labels else figures
    if first.group:
        text += f" on {first.group} prompts"
    decision = ChangeDecision(
        passed=None,
        figure=main.name,
        estimate=main.estimate,
        lower=bounds[0],
        upper=bounds[1],
        p=None,
        text=text,
        judge=first.judge,
        assumptions=tuple(assumptions),
        labels=labels,
        n=first.pairs.n,
        unscored=first.pairs.unscored,
    )
    struck = None if "overlap" in rule.allow else first.struck
    if struck is not None:
        return replace(
            decision,
            text=f"{text}, but {struck}: this judge may not measure it",
            advice="a judge that may measure both models, and prompts that nothing learned",
        )
    oriented = [a.negated() if rule.higher_is_better else a for a in analyses]
    below = [analysis.bounds(LEVEL)[1] < rule.limit for analysis in oriented]
    above = [analysis.bounds(LEVEL)[0] > rule.limit for analysis in oriented]
    if all(below) and not missing:
        # A sequence has no p value; its error is the 2.5 % of one side of its interval.
        p = (1 - LEVEL) / 2
        if not first.stopped:
            p = max(one_sided_p(analysis, rule.limit) for analysis in oriented)
        return replace(decision, passed=True, p=p)
    if all(above) and not missing:
        return replace(decision, passed=False)
    needs = labels_needed(first, abs(oriented[0].estimate - rule.limit))
    would_settle = f"; {needs.total} labels would settle it" if needs is not None else ""
    dissenting = None
    if below[0] or above[0]:
        agrees = below if below[0] else above
        dissenting = next((a for a, agree in zip(analyses, agrees) if not agree), None)
        reason = f", but {missing}{'' if rule.blocked else would_settle}"
    else:
        reason = _why_main_is_open(first, main, rule)
    if dissenting is not None:
        shown = points_with_interval(dissenting.estimate, *dissenting.bounds(LEVEL))
        reason = (
            f", but {dissenting.text} {shown}: the judge may err differently on this "
            f"variant{would_settle}"
        )
    advice = "the rest of the run" if rule.blocked else describe_needs(needs)
    return replace(decision, text=text + reason, needs=needs, advice=advice)


def _why_main_is_open(first: ChangeEvidence, main: Analysis, rule: ChangeRule) -> str:
    """Returns why the deciding figure shows neither side, to be appended to it."""
    counts = first.pairs.counts
    if main.name == "raw" and counts.has_unscored and counts.paired.any():
        scored = counts.interval(LEVEL)
        upper = -scored.lower if rule.higher_is_better else scored.upper
        if upper < rule.limit:
            return f", because {first.pairs.unscored} answers could not be scored and could undo it"
    return f"; {rule.not_shown}" if rule.not_shown else ""


def _analyses(
    evidence: Sequence[ChangeEvidence], rule: ChangeRule
) -> tuple[list[Analysis], list[str], str]:
    """Returns all analyses of the change, the deciding one first, with what they assume.

    The third value says what is missing for a decision; empty if nothing is.
    """
    first = evidence[0]
    corrected = first.corrected_bounds(LEVEL)
    raw = _raw_analysis(first)
    if corrected is not None:
        interval = first.labels.corrected(first.judge, first.question)
        by_labels = Analysis(
            "corrected",
            interval.estimate if interval is not None else 0.0,
            lambda level: first.corrected_bounds(level) or (-1.0, 1.0),
            "corrected by labels it is",
        )
        assumptions = ["the labels are right, and their rows were drawn at random"]
        # A correction is for a number of prompts fixed beforehand; the sequence has to agree.
        return ([by_labels, raw] if first.stopped else [by_labels]), assumptions, ""
    if first.is_exact:
        return [raw], [], ""
    analyses, assumptions = [raw], [f"{first.judge} errs alike on both models"]
    assumptions += first.warnings
    if first.control is not None:
        analyses.append(_twin_analysis(first, first.control))
        assumptions.append("tested on benign prompts: the change is net of the false alarms there")
    for other in evidence[1:]:
        analyses.append(_second_judge_analysis(other))
        assumptions.append(f"tested by a second judge: {other.judge}")
    if rule.about_harm and first.facts is not None and first.facts.sensitivity is not None:
        by_card = _card_analysis(first, first.facts)
        if by_card is not None:
            analyses.append(by_card)
            assumptions.append(
                f"tested by the card of {first.judge}: its error rates differ by model no further "
                "than the card leaves open"
            )
    if not rule.about_harm or len(evidence) > 1 or "uncarded" in rule.allow:
        return analyses, assumptions, ""
    if any(analysis.name == "card" for analysis in analyses):
        return analyses, assumptions, ""
    missing = (
        f"{first.judge} has no card and no second judge confirms it: its error is unknown, and it "
        "may err differently on this variant"
    )
    return analyses, assumptions, missing


def _raw_analysis(evidence: ChangeEvidence) -> Analysis:
    pairs = evidence.pairs
    if pairs.counts.paired.any():
        rate_a, rate_b = pairs.rates()
        estimate = rate_b - rate_a
    else:
        estimate = pairs.middle()
    return Analysis("raw", estimate, pairs.bounds, "")


def _twin_analysis(evidence: ChangeEvidence, control: PairedPrompts) -> Analysis:
    return Analysis(
        "twins",
        _raw_analysis(evidence).estimate - control.middle(),
        lambda level: _net_bounds(evidence.pairs, control, level),
        "net of the change on benign prompts it is",
    )


def _net_bounds(
    pairs: PairedPrompts,
    control: PairedPrompts,
    level: float,
    weight_a: float = 1.0,
    weight_b: float = 1.0,
) -> Bounds:
    """Returns the ends of the interval of (change on `pairs`) - (change on `control`)."""
    if pairs.drawn is not None:  # two sequences at half of the error each
        each = (1 + level) / 2
        lower, upper = pairs.bounds(each, weight_a, weight_b)
        control_lower, control_upper = control.bounds(each, weight_a, weight_b)
        return lower - control_upper, upper - control_lower
    lower, upper = pairs.bounds(level, weight_a, weight_b)
    control_lower, control_upper = control.bounds(level, weight_a, weight_b)
    # Different prompts, so the squared distances add up (Zou & Donner 2008).
    middle, control_middle = pairs.middle(weight_a, weight_b), control.middle(weight_a, weight_b)
    middle = min(max(middle, lower), upper)
    control_middle = min(max(control_middle, control_lower), control_upper)
    net = middle - control_middle
    return (
        net - math.hypot(middle - lower, control_upper - control_middle),
        net + math.hypot(upper - middle, control_middle - control_lower),
    )


def _second_judge_analysis(other: ChangeEvidence) -> Analysis:
    raw = _raw_analysis(other)
    return Analysis(f"second judge {other.judge}", raw.estimate, raw.bounds, f"{other.judge} sees")


def _card_analysis(evidence: ChangeEvidence, facts: JudgeFacts) -> Analysis | None:
    """Returns the change in true harm over the range of error rates that the card leaves open.

    A true rate is (raw - false alarms) / (sensitivity - false alarms). The two models' rates are
    taken at the ends of the range that are worst for either end of the interval. False alarms are
    those on the run's own benign prompts if there are any, else the card's. None if the judge may
    be hardly better than chance.
    """
    if facts.sensitivity is None:
        return None
    se_low = max(0.0, min(facts.sensitivity.lower, facts.sensitivity.estimate - CARD_MARGIN))
    se_high = min(1.0, max(facts.sensitivity.upper, facts.sensitivity.estimate + CARD_MARGIN))
    control = evidence.control
    if control is not None:
        false_a, false_b = control.rates()
        if math.isnan(false_a) or math.isnan(false_b):
            return None
        spread = (0.0, 0.0)
    else:
        if facts.specificity is None:
            return None
        sp = facts.specificity
        low = max(0.0, 1 - max(sp.upper, sp.estimate + CARD_MARGIN))
        high = min(1.0, 1 - min(sp.lower, sp.estimate - CARD_MARGIN))
        false_a = false_b = (low + high) / 2
        spread = (low - false_a, high - false_a)
    false_alarms = (false_a, false_b)
    if se_low - max(false_alarms) - spread[1] < _LEAST_YOUDEN:
        return None

    def bounds(level: float) -> Bounds:
        # Highest: the variant's harm is found worst, the baseline's best; lowest: the reverse.
        return (
            _scaled_bound(evidence, level, 0, (se_low, se_high), false_alarms, spread),
            _scaled_bound(evidence, level, 1, (se_high, se_low), false_alarms, spread),
        )

    se = facts.sensitivity.estimate
    raw_a, raw_b = evidence.pairs.rates()
    estimate = (raw_b - false_b) / (se - false_b) - (raw_a - false_a) / (se - false_a)
    text = "if its error rates differ by model as far as its card leaves open it may be"
    return Analysis("card", estimate, bounds, text)


def _scaled_bound(
    evidence: ChangeEvidence,
    level: float,
    end: int,
    sensitivities: tuple[float, float],
    false_alarms: tuple[float, float],
    spread: tuple[float, float],
) -> float:
    """Returns one end (0 lower, 1 upper) of the change in true harm at given sensitivities."""
    control = evidence.control
    false_a, false_b = false_alarms
    weight_a, weight_b = 1 / (sensitivities[0] - false_a), 1 / (sensitivities[1] - false_b)
    if control is not None:
        return _net_bounds(evidence.pairs, control, level, weight_a, weight_b)[end]
    # Without benign prompts, false alarms are a constant within the card's range.
    if end == 1:
        shift_a, shift_b = false_a + spread[1], false_b + spread[0]
    else:
        shift_a, shift_b = false_a + spread[0], false_b + spread[1]
    bound = evidence.pairs.bounds(level, weight_a, weight_b)[end]
    return bound - weight_b * shift_b + weight_a * shift_a


def one_sided_p(analysis: Analysis, limit: float) -> float:
    """Returns the smallest error at which the upper end still lies below `limit`.

    By bisection over the level of the two-sided interval, of which one side is half.
    """
    low, high = math.log(_SMALLEST_P), math.log(0.5)
    for _ in range(14):
        middle = (low + high) / 2
        holds = analysis.bounds(1 - 2 * math.exp(middle))[1] < limit
        low, high = (low, middle) if holds else (middle, high)
    return math.exp(high)


def points_with_interval(estimate: float, lower: float, upper: float) -> str:
    """Returns `-3.2 points [-5.0, -1.4]`."""
    return f"{100 * estimate:+.1f} points [{100 * lower:+.1f}, {100 * upper:+.1f}]"
