"""Compares two runs: paired deltas, flips, the Pareto plane, and what may be claimed of them.

comparison = compare("runs/plain/safety", "runs/prompted/safety", margin=0.05)
comparison.claim.safer        # harm fell, and no usefulness was lost beyond the margin
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.claims import (
    Claim,
    ClaimOptions,
    Conclusion,
    adjust_claims,
    conclude,
    pair_claims,
)
from truing.analysis.corrected_deltas import PairLabels, refine_deltas
from truing.analysis.deltas import Delta, paired_deltas
from truing.analysis.flips import Flip, count_outcome_changes, find_flips
from truing.analysis.goodhart import GoodhartEntry, goodhart_entries
from truing.analysis.pairing import pair_runs
from truing.analysis.pareto import ParetoPoint, mark_pareto_front, pareto_point
from truing.analysis.scalar_scores import MeanScoreDelta, mean_score_deltas
from truing.analysis.stopped_runs import stopped_early
from truing.analysis.verdict_table import cached_verdict_tables
from truing.runs.folder import Run


class Comparison(Struct, frozen=True, kw_only=True):
    """The comparison of two runs; the first (a) is the baseline.

    Attributes:
        margin: the loss that still counts as non-inferior.
        n_shared: number of samples compared; `only_a` and `only_b` were left out.
        outcomes: outcome in a -> outcome in b -> number of answers.
        points: both runs in the plane of safety and helpfulness.
        claims: what may be said, each with its reason: "safer than" and "more harmful than", then
            their conditions; `claim` is what they add up to.
        ledger: what judges that chose, trained or blocked a model say it gained, each beside an
            independent judge.
        notes: what was left out, and why.
        means: changes of judges that give values instead of verdicts.
    """

    a: str
    b: str
    model_a: str
    model_b: str
    data: tuple[str, ...]
    margin: float
    n_shared: int
    only_a: int
    only_b: int
    deltas: tuple[Delta, ...]
    flips: tuple[Flip, ...]
    outcomes: dict[str, dict[str, int]]
    points: tuple[ParetoPoint, ...]
    claim: Conclusion
    claims: tuple[Claim, ...] = ()
    taxonomy: str = "beavertails"
    ledger: tuple[GoodhartEntry, ...] = ()
    notes: tuple[str, ...] = ()
    means: tuple[MeanScoreDelta, ...] = ()

    def find(
        self, question: str, category: str | None = None, judge: str | None = None
    ) -> Delta | None:
        """Returns the delta of a question by a named judge, or by the first that is not struck."""
        candidates = [
            delta
            for delta in self.deltas
            if delta.question == question
            and delta.category == category
            and (judge is None or delta.judge == judge)
        ]
        for delta in candidates:
            if not delta.selected_by_judge:
                return delta
        return candidates[0] if candidates else None


def compare(
    run_a: Run | str | Path,
    run_b: Run | str | Path,
    *,
    margin: float = 0.05,
    cards: Mapping[str, Path] | None = None,
    allow: tuple[str, ...] = (),
) -> Comparison:
    """Compares two runs over the samples that both contain.

    Args:
        run_a: the baseline.
        run_b: the variant.
        margin: how much more degenerate or truncated answers, and how much fewer answers to benign
            prompts, still count as non-inferior.
        cards: judge name -> card.json, for transported deltas. Corrected deltas come from labels
            that were drawn in both runs.
        allow: reasons to distrust a judge that claims waive: ``uncarded``, ``overlap`` (as in the
            rules of a gate).

    Raises:
        RunError: no sample is shared.
        ValueError: the margin does not lie in [0, 1].
        DataError: a card is of another version of its judge.
    """
    if not 0 <= margin <= 1:
        raise ValueError(f"margin {margin!r} does not lie in [0, 1]")
    with cached_verdict_tables():
        pair = pair_runs(run_a, run_b)
        labels = PairLabels(pair)
        deltas = refine_deltas(pair, paired_deltas(pair), labels, cards)
        options = ClaimOptions(margin=margin, cards=cards or {}, allow=allow)
        claims, conclusion = pair_claims(pair, labels, options)
        points = mark_pareto_front([pareto_point(pair.a, "a"), pareto_point(pair.b, "b")])
    a, b = pair.a, pair.b
    # Student's interval does not hold for a run that was stopped by its own figures.
    means = () if stopped_early(a) or stopped_early(b) else tuple(mean_score_deltas(pair))
    return Comparison(
        a=str(a.path),
        b=str(b.path),
        model_a=a.manifest.model,
        model_b=b.manifest.model,
        data=tuple(data.spec for data in a.manifest.data),
        margin=margin,
        n_shared=len(pair.keys),
        only_a=len(pair.only_a),
        only_b=len(pair.only_b),
        deltas=tuple(deltas),
        flips=tuple(find_flips(pair)),
        outcomes=count_outcome_changes(pair),
        points=points,
        claim=conclusion,
        claims=claims,
        taxonomy=a.manifest.taxonomy,
        ledger=goodhart_entries(pair, labels, cards or {}),
        notes=pair.notes,
        means=means,
    )


def adjust_comparisons(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Returns the comparisons of one report with claims that hold for all of them together.

    "Safer" is decided by p values adjusted over all variants and data sets (Holm), so that a
    report of many variants calls none safer by chance more often than a report of one.
    """
    adjusted = iter(adjust_claims([claim for c in comparisons for claim in c.claims]))
    result = []
    for comparison in comparisons:
        claims = tuple(next(adjusted) for _ in comparison.claims)
        if claims:
            checks = comparison.claim.checks
            comparison = replace(comparison, claims=claims, claim=conclude(claims, checks))
        result.append(comparison)
    return result
