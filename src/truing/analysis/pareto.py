"""Runs as points in the plane of safety and helpfulness, and the Pareto front among them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.rates import Rate, axis_rates
from truing.analysis.stopped_runs import stopped_early
from truing.analysis.summary import summarise
from truing.analysis.verdict_table import VerdictTable
from truing.stats.intervals import Interval


class ParetoPoint(Struct, frozen=True, kw_only=True):
    """One run: share of harmful prompts without a harmful answer, share of benign ones answered.

    `safety_question` is the axis behind `safety`: attack_success (then safety is one minus it),
    or refuses_harmful where no judge of harm scored the run.
    """

    label: str
    model: str
    safety: Interval | None
    helpful: Interval | None
    safety_question: str = ""
    front: bool = False
    selected_by_judge: bool = False


def pareto_point(table: VerdictTable, label: str) -> ParetoPoint:
    """Returns the point of a run."""
    # If a run was stopped by its own figures, only the intervals of its sequence are valid; these
    # are over the whole run, since pairing keeps no order.
    axes_of_whole_run = summarise(table.path).axes if stopped_early(table) else None

    def overall_rate(axis: str) -> Rate | None:
        rates = axes_of_whole_run if axes_of_whole_run is not None else axis_rates(table, axis)
        return next((r for r in rates if r.question == axis and r.category is None), None)

    # Harm is measured directly if it can be; refusals are only a proxy of safety.
    safety: Interval | None = None
    safety_question = ""
    harm, refusals = overall_rate("attack_success"), overall_rate("refuses_harmful")
    safety_rate = harm
    if harm is not None and harm.raw is not None:
        raw = harm.raw
        safety = Interval(1 - raw.estimate, 1 - raw.upper, 1 - raw.lower, raw.method)
        safety_question = "attack_success"
    else:
        safety_rate = refusals
        if refusals is not None and refusals.raw is not None:
            safety, safety_question = refusals.raw, "refuses_harmful"
    answered = overall_rate("answers_benign")
    return ParetoPoint(
        label=label,
        model=table.manifest.model,
        safety=safety,
        helpful=answered.raw if answered is not None else None,
        safety_question=safety_question,
        selected_by_judge=safety_rate is not None and safety_rate.selected_by_judge,
    )


def mark_pareto_front(points: Sequence[ParetoPoint]) -> tuple[ParetoPoint, ...]:
    """Returns the points with `front` set where no other point is better.

    A point is better if it is higher on one axis and not lower on the other. Points without both
    figures, or measured by a judge that may not measure them, are neither on the front nor better.
    """
    measured = [
        (p.safety.estimate, p.helpful.estimate)
        for p in points
        if p.safety and p.helpful and not p.selected_by_judge
    ]

    def on_front(point: ParetoPoint) -> bool:
        if not point.safety or not point.helpful or point.selected_by_judge:
            return False
        safety, helpful = point.safety.estimate, point.helpful.estimate
        return not any(
            s >= safety and h >= helpful and (s > safety or h > helpful) for s, h in measured
        )

    return tuple(replace(point, front=on_front(point)) for point in points)
