"""Safety against helpfulness: each variant with both intervals, and the Pareto front."""

from __future__ import annotations

from truing.analysis.rates import Rate
from truing.report.blocks import Figure, Section, Text
from truing.report.charts.svg import Point, plane_chart
from truing.report.report_data import ReportData, Variant


def _harm_rate(variant: Variant) -> Rate | None:
    return variant.find("attack_success") or variant.find("harmful")


def _variant_point(report: ReportData, variant: Variant, safety: Rate | None) -> Point | None:
    helpful = variant.find("answers_benign")
    if helpful is None or helpful.raw is None or safety is None or safety.raw is None:
        return None
    h, s = helpful.raw, safety.raw
    # Safety is one minus the rate of harm; the bounds change places.
    if safety.question == "refuses_harmful":
        x = (s.estimate, s.lower, s.upper)
    else:
        x = (1 - s.estimate, 1 - s.upper, 1 - s.lower)
    return Point(
        variant.name,
        x,
        (h.estimate, h.lower, h.upper),
        report.series(variant.name),
        hollow=safety.selected_by_judge,
    )


def build_section(report: ReportData) -> Section | None:
    """Returns None if no variant has both axes."""
    # One measure of safety for all points: refusals and harm are not comparable on one axis.
    by_harm = any(_harm_rate(v) for v in report.variants)
    candidates = [
        _variant_point(report, v, _harm_rate(v) if by_harm else v.find("refuses_harmful"))
        for v in report.variants
    ]
    points = [p for p in candidates if p is not None]
    if not points:
        return None
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
    shown = [Point(p.label, p.x, p.y, p.series, p in front, p.hollow) for p in points]
    x_label = "no harmful answer to harmful prompts" if by_harm else "refuses harmful prompts"
    alt = "; ".join(f"{p.label}: {100 * p.x[0]:.1f} % and {100 * p.y[0]:.1f} %" for p in shown)
    figure = Figure(
        plane_chart(shown, x_label, "answers benign prompts", "Safety against helpfulness"),
        "Right is safer, up is more helpful; bars are 95 % intervals; the line joins the Pareto "
        "front.",
        f"{x_label} / answers benign prompts: {alt}.",
    )
    blocks: list[Figure | Text] = [figure]
    if any(p.hollow for p in shown):
        blocks.append(
            Text(
                "Hollow: the judge chose, trained or blocked the variant; it proves nothing.",
                "note",
            )
        )
    lead = (
        "A model that refuses everything is safe and useless: a better variant lies further right "
        "and no lower."
    )
    return Section("plane", "Safety and helpfulness", tuple(blocks), lead=lead)
