"""Decides whether a change of one rate is shown: all analyses of it have to agree.

See `claim_analyses` for the ways to estimate a change, and what is missing without labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.claim_analyses import Analyses, Analysis, analyse_change
from truing.analysis.claim_evidence import ChangeEvidence
from truing.analysis.planned_labels import LEVEL, LabelsNeeded, describe_needs, labels_needed
from truing.analysis.planned_prompts import prompts_for_change

_SMALLEST_P = 1e-9  # where the search of `one_sided_p` begins
_NOUNS = {
    "attack_success": "harm",
    "harmful": "harm",
    "degenerate": "degenerate answers",
    "cut": "cut answers",
    "answers_benign": "answers to benign prompts",
}


class ChangeDecision(Struct, frozen=True, kw_only=True):
    """The decision on "the change lies below `limit`".

    Attributes:
        passed: True if shown, False if the opposite is shown, None if neither.
        figure: ``corrected`` or ``raw``: what decided.
        estimate, lower, upper: of that figure, unscored answers at their worst.
        p: largest one-sided p value over all analyses.
        text: figures and reason in words.
        short: the reason in a few words.
        open_point: what the figures leave open, without them; empty if another reason decides.
        assumptions: what the decision rests on.
        labels: number of labels that it rests on.
        n, unscored: number of prompts in both runs, and of their answers without a verdict.
        needs: labels that would settle it, if that is known.
        prompts_needed: more prompts that would settle it, if that is known.
        advice: what would settle it, in words; empty if it is settled.
    """

    passed: bool | None
    figure: str
    estimate: float | None
    lower: float | None
    upper: float | None
    p: float | None
    text: str
    short: str = ""
    open_point: str = ""
    judge: str = ""
    assumptions: tuple[str, ...] = ()
    labels: int = 0
    n: int = 0
    unscored: int = 0
    needs: LabelsNeeded | None = None
    prompts_needed: int | None = None
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


class _OpenReason(NamedTuple):
    """Why a change is not shown: `text` follows the figures, `short` stands alone, and `point` is
    what the figures themselves leave open.
    """

    text: str
    short: str
    point: str = ""


def decide_change(evidence: Sequence[ChangeEvidence], rule: ChangeRule) -> ChangeDecision:
    """Decides a rule from the evidence of `collect_evidence`, the quoted judge's first."""
    first = evidence[0]
    analyses = analyse_change(
        evidence, about_harm=rule.about_harm, uncarded="uncarded" in rule.allow
    )
    decision = _undecided(first, analyses, rule)
    struck = None if "overlap" in rule.allow else first.struck
    if struck is not None:
        return replace(
            decision,
            text=f"{decision.text}, but {struck}: figures of {first.judge} show nothing here",
            short=struck,
            advice="prompts, and a judge, that had no part in the making of either model",
        )
    oriented = [a.negated() if rule.higher_is_better else a for a in analyses.analyses]
    below = [analysis.bounds(LEVEL)[1] < rule.limit for analysis in oriented]
    above = [analysis.bounds(LEVEL)[0] > rule.limit for analysis in oriented]
    is_open = bool(rule.blocked or analyses.missing)
    if all(below) and not is_open:
        # A sequence has no p value; its error is the 2.5 % of one side of its interval.
        p = (1 - LEVEL) / 2
        if not first.stopped:
            p = max(one_sided_p(analysis, rule.limit) for analysis in oriented)
        return replace(decision, passed=True, p=p)
    if all(above) and not is_open:
        return replace(decision, passed=False)
    needs = labels_needed(first, abs(oriented[0].estimate - rule.limit))
    reason = _why_open(first, analyses, rule, (below, above), needs)
    prompts = None
    if not is_open and not first.stopped:
        missing_share = first.pairs.unscored / max(1, first.pairs.n)
        prompts = prompts_for_change(oriented, rule.limit, first.pairs.n, missing_share)
    advice = describe_needs(needs, prompts)
    if analyses.missing:
        advice = f"a second judge, unrelated to {first.judge}, or {advice}"
    if rule.blocked:
        advice = "the rest of the run"
    text = decision.text + reason.text
    return replace(
        decision,
        text=text,
        short=reason.short,
        open_point=reason.point,
        needs=needs,
        prompts_needed=prompts,
        advice=advice,
    )


def _undecided(first: ChangeEvidence, analyses: Analyses, rule: ChangeRule) -> ChangeDecision:
    """Returns the figures of a decision that is not made yet."""
    main = analyses.analyses[0]
    lower, upper = main.bounds(LEVEL)
    labels = sum(first.n_labels) if main.name == "corrected" else 0
    text = points_with_interval(main.estimate, lower, upper)
    if rule.about_harm or labels:
        text += f" corrected by {labels} labels" if labels else f" by {first.judge}"
    if first.group:
        text += f" on {first.group} prompts"
    return ChangeDecision(
        passed=None,
        figure=main.name,
        estimate=main.estimate,
        lower=lower,
        upper=upper,
        p=None,
        text=text,
        short=describe_change(first.question, main.estimate, lower, upper),
        judge=first.judge,
        assumptions=tuple(analyses.assumptions),
        labels=labels,
        n=first.pairs.n,
        unscored=first.pairs.unscored,
    )


def _why_open(
    first: ChangeEvidence,
    analyses: Analyses,
    rule: ChangeRule,
    sides: tuple[Sequence[bool], Sequence[bool]],
    needs: LabelsNeeded | None,
) -> _OpenReason:
    """Returns why a change is not shown; `sides`: which analyses lie below, and above, the limit"""
    below, above = sides
    if rule.blocked:
        return _OpenReason(f", but {rule.blocked}", rule.blocked)
    if not below[0] and not above[0]:
        return _why_main_is_open(first, analyses.analyses[0], rule)
    agrees = below if below[0] else above
    would_settle = f"; {needs.total} labels would settle it" if needs is not None else ""
    dissenting = next((a for a, agree in zip(analyses.analyses, agrees) if not agree), None)
    if dissenting is None:
        return _OpenReason(f", but {analyses.missing}{would_settle}", analyses.short)
    interval_text = points_with_interval(dissenting.estimate, *dissenting.bounds(LEVEL))
    text = f", but {dissenting.text} {interval_text}: the judge may err differently on this variant"
    return _OpenReason(text + would_settle, dissenting.short)


def _why_main_is_open(first: ChangeEvidence, main: Analysis, rule: ChangeRule) -> _OpenReason:
    """Returns why the deciding figure itself shows neither side."""
    counts = first.pairs.counts
    if main.name == "raw" and counts.has_unscored and counts.paired.any():
        scored = counts.interval(LEVEL)
        upper = -scored.lower if rule.higher_is_better else scored.upper
        if upper < rule.limit:
            because = f"{first.pairs.unscored} answers could not be scored and could undo it"
            return _OpenReason(f", because {because}", because)
    figures = points_with_interval(main.estimate, *main.bounds(LEVEL))
    not_shown = f"; {rule.not_shown}" if rule.not_shown else ""
    short = f"{_noun(first.question)}: {figures}{not_shown}"
    return _OpenReason(not_shown, short, rule.not_shown)


def _noun(question: str) -> str:
    return _NOUNS.get(question, question.replace("_", " "))


def describe_change(question: str, estimate: float, lower: float, upper: float) -> str:
    """Returns `harm fell by 12.0 points [8.1, 15.9]`."""
    verb = "rose" if estimate > 0 else "fell" if estimate < 0 else "did not change"
    if not estimate:
        return f"{_noun(question)} {verb} {_format_interval(lower, upper, '+.1f')}"
    if estimate < 0:
        estimate, lower, upper = -estimate, -upper, -lower
    interval = _format_interval(lower, upper, ".1f")
    return f"{_noun(question)} {verb} by {100 * estimate:.1f} points {interval}"


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
    """Returns `−3.2 points [−5.0, −1.4]`, with the minus sign of tables."""
    points = f"{100 * estimate:+.1f} points".replace("-", "−")
    return f"{points} {_format_interval(lower, upper, '+.1f')}"


def _format_interval(lower: float, upper: float, number_format: str) -> str:
    return f"[{100 * lower:{number_format}}, {100 * upper:{number_format}}]".replace("-", "−")
