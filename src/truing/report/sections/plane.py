"""Safety against helpfulness: each variant with both intervals, and the Pareto front."""

from __future__ import annotations

from truing.analysis.rates import Rate
from truing.analysis.summary import RunSummary
from truing.report.blocks import Figure, Section, Text
from truing.report.charts.svg import Point, plane_chart
from truing.report.formatting import SELECTED
from truing.report.report_data import ReportData, Variant


def _best_bounds(rate: Rate) -> tuple[float, float, float] | None:
    """Returns estimate and ends of the corrected rate, else of the raw one; None without."""
    best = rate.corrected or rate.raw
    return None if best is None else (best.estimate, best.lower, best.upper)


def _find(summary: RunSummary | None, *questions: str) -> Rate | None:
    if summary is None:
        return None
    rates = (summary.find(question) for question in questions)
    return next((rate for rate in rates if rate is not None and rate.n), None)


def _variant_point(
    report: ReportData, variant: Variant, safety: Rate | None, helpful: Rate | None
) -> Point | None:
    y = _best_bounds(helpful) if helpful is not None else None
    bounds = _best_bounds(safety) if safety is not None else None
    if safety is None or bounds is None or y is None:
        return None
    # Safety is one minus the rate of harm; the bounds change places.
    x = (
        bounds
        if safety.question == "refuses_harmful"
        else (1 - bounds[0], 1 - bounds[2], 1 - bounds[1])
    )
    return Point(
        variant.name,
        x,
        y,
        report.series(variant.name),
        hollow=safety.selected_by_judge,
    )


def _points(report: ReportData, harm_data: str, helpful_data: str, *, by_harm: bool) -> list[Point]:
    questions = ("attack_success", "harmful") if by_harm else ("refuses_harmful",)
    candidates = [
        _variant_point(
            report,
            variant,
            _find(variant.summaries.get(harm_data), *questions),
            _find(variant.summaries.get(helpful_data), "answers_benign"),
        )
        for variant in report.variants
    ]
    return [point for point in candidates if point is not None]


def _mark_front(points: list[Point]) -> list[Point]:
    # A judge that chose a variant would put it on the front.
    trusted = [p for p in points if not p.hollow]
    front = [
        p
        for p in trusted
        if not any(
            q.x[0] >= p.x[0] and q.y[0] >= p.y[0] and (q.x[0] > p.x[0] or q.y[0] > p.y[0])
            for q in trusted
        )
    ]
    return [Point(p.label, p.x, p.y, p.series, p in front, p.hollow) for p in points]


def _figure(report: ReportData, harm_data: str, helpful_data: str) -> tuple[Figure, bool] | None:
    """Returns the chart of two data sets (mostly one), and whether a point is hollow."""
    # One measure of safety for all points: refusals and harm are not comparable on one axis.
    summaries = (v.summaries.get(harm_data) for v in report.variants)
    by_harm = any(_find(s, "attack_success", "harmful") for s in summaries)
    points = _mark_front(_points(report, harm_data, helpful_data, by_harm=by_harm))
    if not points:
        return None
    x_label = "no harmful answer to harmful prompts" if by_harm else "refuses harmful prompts"
    alt = "; ".join(f"{p.label}: {100 * p.x[0]:.1f} % and {100 * p.y[0]:.1f} %" for p in points)
    sets = harm_data if harm_data == helpful_data else f"{harm_data} and {helpful_data}"
    figure = Figure(
        plane_chart(
            points, x_label, "answers benign prompts", f"{sets}: safety against helpfulness"
        ),
        f"{sets}: right is safer, up is more helpful; bars are 95 % intervals; the line joins the "
        "Pareto front.",
        f"{x_label} / answers benign prompts: {alt}.",
    )
    return figure, any(p.hollow for p in points)


def _struck_reasons(report: ReportData) -> list[str]:
    """Returns why judges of harm or refusal are struck, each reason once."""
    rates = [
        rate
        for variant in report.variants
        for summary in variant.summaries.values()
        if (rate := _find(summary, "attack_success", "harmful", "refuses_harmful")) is not None
    ]
    return list(dict.fromkeys(r.struck or SELECTED for r in rates if r.selected_by_judge))


def build_section(report: ReportData) -> Section | None:
    """Returns a chart for each data set with both axes; None if there is none.

    If no data set has both, the axes come from the first two that have one each.
    """
    figures = [f for data in report.data if (f := _figure(report, data, data)) is not None]
    if not figures:
        pairs = ((x, y) for x in report.data for y in report.data if x != y)
        figures = [f for x, y in pairs if (f := _figure(report, x, y)) is not None][:1]
    if not figures:
        return None
    blocks: list[Figure | Text] = [figure for figure, _ in figures]
    if any(hollow for _, hollow in figures):
        reasons = "; ".join(_struck_reasons(report))
        text = f"Hollow: the judge may not measure the variant ({reasons}); it proves nothing."
        blocks.append(Text(text, "note"))
    lead = (
        "A model that refuses everything is safe and useless: a better variant lies further right "
        "and no lower."
    )
    return Section("plane", "Safety and helpfulness", tuple(blocks), lead=lead)
