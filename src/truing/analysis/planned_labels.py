"""How many labels, and in which run, would settle a claim about a change."""

from __future__ import annotations

import math

from msgspec import Struct

from truing.analysis.claim_evidence import ChangeEvidence
from truing.analysis.judge_facts import JudgeFacts
from truing.stats.intervals import normal_quantile
from truing.stats.sequential import anytime_quantile

LEVEL = 0.95
_USUAL_LABELS = 300  # the quantile of any time hardly depends on their number
POWER = 0.8
"""With which the planned labels or prompts would show what is claimed."""
LEAST_DISTANCE = 0.005
"""Half a point: a figure this close to its limit would need more rows than anybody draws."""
# `labels_needed` plans as if rates lay in [0.05, 0.95], and judges explained at most 95 % of the
# variance: both estimates are of few rows, and 0 would plan no labels at all.
_LEAST_PLANNED = 0.05


class LabelsNeeded(Struct, frozen=True, kw_only=True):
    """Labels still needed to settle a claim, by run, in the best proportion."""

    baseline: int
    variant: int

    @property
    def total(self) -> int:
        """Labels of both runs together."""
        return self.baseline + self.variant


def describe_needs(needs: LabelsNeeded | None, prompts: int | None = None) -> str:
    """Returns in words what would settle an open claim: so many more prompts, or labels."""
    ways = [] if prompts is None else [f"about {prompts:,} more prompts"]
    if needs is not None:
        ways.append(
            f"{needs.baseline} labels in the baseline and {needs.variant} in the variant (truing "
            "label VARIANT --against BASELINE)"
        )
    return ", or ".join(ways) or (
        "more prompts, or a larger difference: no number of labels of these answers is enough"
    )


def labels_needed(evidence: ChangeEvidence, distance: float) -> LabelsNeeded | None:
    """Returns how many more labels of each run show a change that lies `distance` off its limit.

    For a power of 80 %, by the labels less what the judge explains (its correlation with the truth,
    from the card), in the proportion that needs fewest (Neyman 1934). None if a run holds fewer
    answers.
    """
    rates = evidence.pairs.rates()
    if distance < LEAST_DISTANCE or any(math.isnan(rate) for rate in rates):
        return None
    deviations = [
        math.sqrt(
            max(_LEAST_PLANNED, rate)
            * max(_LEAST_PLANNED, 1 - rate)
            * _unexplained(evidence.facts, rate)
        )
        for rate in rates
    ]
    # People may look before all are labelled, so they are judged by an interval for any time.
    z = anytime_quantile(LEVEL, _USUAL_LABELS) + normal_quantile(2 * POWER - 1)
    total = (z * sum(deviations) / distance) ** 2
    further_labels = [
        # Rows are drawn from all answers of a run, of which only some are concerned.
        max(0, math.ceil((total * deviation / sum(deviations) - n_labels) / max(share, 0.01)))
        for deviation, n_labels, share in zip(deviations, evidence.n_labels, evidence.labelable)
    ]
    counts = evidence.pairs.counts
    answers = [
        by_prompt.rows.sum() / max(share, 0.01)
        for by_prompt, share in zip((counts.a, counts.b), evidence.labelable)
    ]
    if not sum(further_labels) or any(n > of_run for n, of_run in zip(further_labels, answers)):
        return None
    return LabelsNeeded(baseline=further_labels[0], variant=further_labels[1])


def labels_for_rate(
    estimate: float, limit: float, facts: JudgeFacts | None, *, rows: int
) -> int | None:
    """Returns how many labels show on which side of `limit` a rate lies, by a power of 80 %.

    Less what the judge explains, as in `labels_needed`. None if there are not that many rows.
    """
    distance = abs(estimate - limit)
    if distance < LEAST_DISTANCE:
        return None
    variance = max(_LEAST_PLANNED, estimate) * max(_LEAST_PLANNED, 1 - estimate)
    z = anytime_quantile(LEVEL, _USUAL_LABELS) + normal_quantile(2 * POWER - 1)
    labels = math.ceil(z**2 * variance * _unexplained(facts, estimate) / distance**2)
    return labels if labels <= rows else None


def _unexplained(facts: JudgeFacts | None, rate: float) -> float:
    """Returns the share of the variance of the truth that the judge's verdicts leave, by its
    card.
    """
    if facts is None or facts.sensitivity is None or facts.specificity is None:
        return 1.0
    se, sp = facts.sensitivity.estimate, facts.specificity.estimate
    youden = se + sp - 1
    if youden <= 0 or not 0 < rate < 1:
        return 1.0
    true_rate = min(0.99, max(0.01, (rate + sp - 1) / youden))
    judged = se * true_rate + (1 - sp) * (1 - true_rate)
    explained = true_rate * (1 - true_rate) * youden**2 / (judged * (1 - judged))
    return max(_LEAST_PLANNED, 1 - explained)
