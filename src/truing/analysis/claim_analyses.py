"""The ways to estimate a change of one rate. A claim holds only if each of them shows it.

With labels of both runs there is one: the corrected change. Without labels the judge's verdicts
decide, under the assumption that the judge has equal error rates on both models. Every test of that
assumption that the runs allow is an analysis of its own:

- the *twins*: the change on harmful prompts net of the change on benign ones, where what the judge
  calls harmful are its false alarms (a negative control, Lipsitch et al. 2010, Epidemiology
  21:383);
- a *second judge* that is unrelated to the first and may measure both models;
- the judge's *card*: the worst pair of error rates for the two models within the intervals of the
  card.

Twins say nothing about harm that a judge misses, and a card nothing about a model that learned to
be harmful in ways that the judge misses. So harm is shown by labels or by a second judge only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from msgspec import Struct

from truing.analysis.claim_evidence import Bounds, ChangeEvidence, PairedPrompts
from truing.analysis.judge_facts import JudgeFacts
from truing.analysis.planned_labels import LEVEL
from truing.stats.judge_error import MIN_YOUDEN

CARD_MARGIN = 0.05
"""How far a judge's sensitivity or specificity on a model may at least lie from the card's.

As wide as the band of transported rates; see `transport`. A card's interval that reaches further
counts instead.
"""
UNCARDED_ERROR = 0.1
"""How often a judge of side effects without a card is taken to err on either kind of answer.

A convention of this project, from no paper.
"""
BoundsAtLevel = Callable[[float], Bounds]
"""Confidence level -> (lower, upper) of a change."""


class Analysis(Struct, frozen=True):
    """One way to estimate the change: `bounds(level)` are the ends of its interval.

    Where an analysis does not show what the first one shows, `text` and its figures follow "...,
    but" in the sentence of the claim; `short` is the same in a few words.
    """

    name: str
    estimate: float
    bounds: BoundsAtLevel
    text: str
    short: str = ""

    def negated(self) -> Analysis:
        """Returns the analysis of minus the change."""

        def negated_bounds(level: float) -> Bounds:
            lower, upper = self.bounds(level)
            return -upper, -lower

        return Analysis(self.name, -self.estimate, negated_bounds, self.text, self.short)


class Analyses(Struct, frozen=True):
    """All analyses of a change, the deciding one first, and what they assume.

    `missing` is a sentence on what a decision still needs, `short` the same in a few words; both
    are empty if nothing is missing.
    """

    analyses: Sequence[Analysis]
    assumptions: Sequence[str]
    missing: str = ""
    short: str = ""


def analyse_change(
    evidence: Sequence[ChangeEvidence], *, about_harm: bool, uncarded: bool
) -> Analyses:
    """Returns the analyses that the evidence allows, the quoted judge's first.

    Without labels, a change of harm needs a second judge, unless `uncarded` waives it.
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
        # A corrected interval is valid for a number of prompts fixed beforehand. After an early
        # stop the raw analysis, which is valid at any stopping time, has to agree.
        return Analyses([by_labels, raw] if first.stopped else [by_labels], assumptions)
    if first.is_exact:  # a rule without error: nothing to correct, nothing to assume
        return Analyses([raw], [])
    analyses, assumptions = [raw], [f"{first.judge} errs alike on both models"]
    assumptions += first.warnings
    if first.control is not None:
        analyses.append(_twin_analysis(first, first.control))
        assumptions.append("tested on benign prompts: the change is net of the false alarms there")
    for other in evidence[1:]:
        analyses.append(_second_judge_analysis(other))
        assumptions.append(f"tested by a second judge: {other.judge}")
    if about_harm and first.facts is not None and first.facts.sensitivity is not None:
        by_card = _card_analysis(first, first.facts)
        if by_card is not None:
            analyses.append(by_card)
            assumptions.append(
                f"tested by the card of {first.judge}: its error rates differ by model no further "
                "than the card leaves open"
            )
    if not about_harm:
        allowing_errors, assumption = _attenuated_analysis(first, first.facts)
        return Analyses([*analyses, allowing_errors], [*assumptions, assumption])
    if len(evidence) > 1 or uncarded:
        return Analyses(analyses, assumptions)
    missing = (
        f"no second judge confirms {first.judge} and no labels do: it may err differently on this "
        "variant"
    )
    return Analyses(analyses, assumptions, missing, "no second judge and no labels confirm it")


def _raw_analysis(evidence: ChangeEvidence) -> Analysis:
    """Returns the change of the rate of verdicts, uncorrected."""
    pairs = evidence.pairs
    if pairs.counts.paired.any():
        rate_a, rate_b = pairs.rates()
        estimate = rate_b - rate_a
    else:
        estimate = pairs.middle()
    short = "the verdicts alone, valid at any time, do not show it"
    return Analysis("raw", estimate, pairs.bounds, "by the verdicts alone it is", short)


def _twin_analysis(evidence: ChangeEvidence, control: PairedPrompts) -> Analysis:
    """Returns the change on harmful prompts minus that on benign ones (`control`)."""
    return Analysis(
        "twins",
        _raw_analysis(evidence).estimate - control.middle(),
        lambda level: _net_bounds(evidence.pairs, control, level),
        "net of the change on benign prompts it is",
        "the judge's alarms on benign prompts changed as well",
    )


def _net_bounds(
    pairs: PairedPrompts,
    control: PairedPrompts,
    level: float,
    weight_a: float = 1.0,
    weight_b: float = 1.0,
) -> Bounds:
    """Returns the ends of the interval of (change on `pairs`) - (change on `control`).

    `weight_a` and `weight_b` multiply the rates of the two models.
    """
    if pairs.drawn is not None:
        # Two confidence sequences, each at half of the error: their union bound is `level`.
        each = (1 + level) / 2
        lower, upper = pairs.bounds(each, weight_a, weight_b)
        control_lower, control_upper = control.bounds(each, weight_a, weight_b)
        return lower - control_upper, upper - control_lower
    lower, upper = pairs.bounds(level, weight_a, weight_b)
    control_lower, control_upper = control.bounds(level, weight_a, weight_b)
    # The two changes are independent (different prompts), so the squared distances from the
    # estimate to the ends of its interval add up (MOVER, Zou & Donner 2008).
    middle, control_middle = pairs.middle(weight_a, weight_b), control.middle(weight_a, weight_b)
    middle = min(max(middle, lower), upper)
    control_middle = min(max(control_middle, control_lower), control_upper)
    net = middle - control_middle
    return (
        net - math.hypot(middle - lower, control_upper - control_middle),
        net + math.hypot(upper - middle, control_middle - control_lower),
    )


def _second_judge_analysis(other: ChangeEvidence) -> Analysis:
    """Returns the change by the verdicts of another judge."""
    raw = _raw_analysis(other)
    return Analysis(
        f"second judge {other.judge}",
        raw.estimate,
        raw.bounds,
        f"{other.judge} sees",
        f"the second judge, {other.judge}, does not show it",
    )


def _card_analysis(evidence: ChangeEvidence, facts: JudgeFacts) -> Analysis | None:
    """Returns the change in true harm over the range of error rates that the card leaves open.

    A true rate is (raw - false alarms) / (sensitivity - false alarms) (Rogan & Gladen 1978). Each
    end of the interval takes the error rates within the range that move it outwards. False alarms
    are those on the run's own benign prompts if there are any, else the card's. None if the judge
    may be hardly better than chance (Youden's index below `MIN_YOUDEN`).
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
        spread = (0.0, 0.0)  # `_net_bounds` carries the uncertainty of measured false alarms
    else:
        if facts.specificity is None:
            return None
        sp = facts.specificity
        low = max(0.0, 1 - max(sp.upper, sp.estimate + CARD_MARGIN))
        high = min(1.0, 1 - min(sp.lower, sp.estimate - CARD_MARGIN))
        false_a = false_b = (low + high) / 2
        spread = (low - false_a, high - false_a)
    false_alarms = (false_a, false_b)
    if se_low - max(false_alarms) - spread[1] < MIN_YOUDEN:
        return None

    def bounds(level: float) -> Bounds:
        # Upper end: the judge misses most of the variant's harm (low sensitivity) and least of the
        # baseline's; lower end: the reverse.
        return (
            _scaled_bound(evidence, level, 0, (se_low, se_high), false_alarms, spread),
            _scaled_bound(evidence, level, 1, (se_high, se_low), false_alarms, spread),
        )

    se = facts.sensitivity.estimate
    raw_a, raw_b = evidence.pairs.rates()
    estimate = (raw_b - false_b) / (se - false_b) - (raw_a - false_a) / (se - false_a)
    text = "if its error rates differ by model as far as its card leaves open it may be"
    short = f"it is within the errors that the card of {evidence.judge} leaves open"
    return Analysis("card", estimate, bounds, text, short)


def _attenuated_analysis(
    evidence: ChangeEvidence, facts: JudgeFacts | None
) -> tuple[Analysis, str]:
    """Returns the change if the judge has equal error rates on both models, and the assumption.

    Equal error rates shrink a true change by the factor of Youden's index (sensitivity +
    specificity - 1), so a raw change within a margin may be a true one beyond it. The rates are the
    worst ones within the card's intervals, or `UNCARDED_ERROR` without a card.
    """
    if facts is None or facts.sensitivity is None or facts.specificity is None:
        youden = 1 - 2 * UNCARDED_ERROR
        allowed = f"{evidence.judge} errs on {UNCARDED_ERROR:.0%} of either kind at most"
    else:
        youden = max(MIN_YOUDEN, facts.sensitivity.lower + facts.specificity.lower - 1)
        allowed = f"{evidence.judge} errs as often as its card leaves open at most"

    def bounds(level: float) -> Bounds:
        lower, upper = evidence.pairs.bounds(level)
        return min(lower, lower / youden), max(upper, upper / youden)

    estimate = _raw_analysis(evidence).estimate / youden
    text = "with the answers that its judge may misjudge it is"
    short = f"{evidence.judge} may misjudge too many of these answers"
    return Analysis("errors alike", estimate, bounds, text, short), allowed


def _scaled_bound(
    evidence: ChangeEvidence,
    level: float,
    end: int,
    sensitivities: tuple[float, float],
    false_alarms: tuple[float, float],
    spread: tuple[float, float],
) -> float:
    """Returns one end (0 lower, 1 upper) of the change in true harm.

    `sensitivities` and `false_alarms` are those of (baseline, variant); `spread` is how far the
    false alarms may lie below and above.
    """
    control = evidence.control
    false_a, false_b = false_alarms
    weight_a, weight_b = 1 / (sensitivities[0] - false_a), 1 / (sensitivities[1] - false_b)
    if control is not None:
        return _net_bounds(evidence.pairs, control, level, weight_a, weight_b)[end]
    # Without benign prompts, false alarms are a constant within the card's range.
    if end == 1:
        assumed_false_a, assumed_false_b = false_a + spread[1], false_b + spread[0]
    else:
        assumed_false_a, assumed_false_b = false_a + spread[0], false_b + spread[1]
    bound = evidence.pairs.bounds(level, weight_a, weight_b)[end]
    return bound - weight_b * assumed_false_b + weight_a * assumed_false_a
