"""Harm and refusal by category, variants side by side, with intervals."""

from __future__ import annotations

from truing.analysis.rates import AXIS_TITLES
from truing.report.blocks import Figure, Grid, Raw, Section, Table
from truing.report.charts.svg import Mark, interval_chart, legend_html
from truing.report.formatting import category_label, category_name, make_rate_cell
from truing.report.report_data import ReportData

_QUESTIONS = ("attack_success", "harmful", "harmful_predicted", "refuses_harmful", "answers_benign")
_WORDS = {
    **AXIS_TITLES,
    "harmful": "harmful answers (all prompts)",
    "harmful_predicted": "harmful answers by the judge's own categories",
}


def _categories(report: ReportData, data: str, question: str) -> list[str | None]:
    categories: dict[str | None, None] = {}
    for variant in report.variants:
        summary = variant.summaries.get(data)
        for rate in (*summary.rates, *summary.axes) if summary else ():
            if rate.question == question and rate.category is not None:
                categories[rate.category] = None
    return list(categories)


def _same_as_attack_success(report: ReportData, data: str) -> bool:
    """Whether harm over all prompts equals attack success in every category.

    It does where benign prompts belong to no category: the second chart would repeat the first.
    """
    for summary in (v.summaries[data] for v in report.variants if data in v.summaries):
        for category in _categories(report, data, "harmful"):
            both = [summary.find(q, category) for q in ("harmful", "attack_success")]
            if [(r.n, r.events) if r else None for r in both[:1]] != [
                (r.n, r.events) if r else None for r in both[1:]
            ]:
                return False
    return True


def _category_figure(report: ReportData, data: str, question: str, title: str) -> Figure | None:
    groups: list[tuple[str, list[Mark]]] = []
    for category in [None, *_categories(report, data, question)]:
        marks = []
        for variant in report.variants:
            summary = variant.summaries.get(data)
            rate = summary.find(question, category) if summary else None
            if rate is None or rate.raw is None:
                continue
            note = f", {rate.events} of {rate.scored}" + (
                ", struck: this judge chose, trained or blocked the model"
                if rate.selected_by_judge
                else ""
            )
            # Drawn, but without emphasis: leaving it out would hide that it was measured.
            hollow = rate.selected_by_judge or rate.small
            raw, series = rate.raw, report.series(variant.name)
            marks.append(
                Mark(variant.name, raw.estimate, raw.lower, raw.upper, series, hollow, note)
            )
        if marks:
            groups.append((category_label(category), marks))
    if not groups:
        return None
    alt = "; ".join(
        f"{g}: {', '.join(f'{m.label} {100 * m.estimate:.0f} %' for m in ms)}" for g, ms in groups
    )
    return Figure(interval_chart(groups, title), title, alt)


def _category_table(report: ReportData, data: str, question: str, title: str) -> Table:
    grid = Grid(["category", *(v.name for v in report.variants)])
    for category in [None, *_categories(report, data, question)]:
        summaries = [v.summaries.get(data) for v in report.variants]
        grid.add(
            category_name(category),
            *(make_rate_cell(s.find(question, category) if s else None) for s in summaries),
        )
    return grid.table(title, right=range(1, len(report.variants) + 1), folded=True)


def build_section(report: ReportData) -> Section | None:
    """Returns a chart and a table for each question and data set with harm categories."""
    blocks: list[Figure | Table | Raw] = []
    for data in report.data:
        for question in _QUESTIONS:
            if not _categories(report, data, question):
                continue
            if question == "harmful" and _same_as_attack_success(report, data):
                continue
            title = f"{data}: {_WORDS[question]}"
            figure = _category_figure(report, data, question, title)
            if figure is not None:
                blocks += [figure, _category_table(report, data, question, title)]
    if not blocks:
        return None
    key = Raw(legend_html([v.name for v in report.variants]))
    lead = (
        "Hollow marks rest on fewer than 30 rows, or on a judge that selected the variant: "
        "read counts, not order."
    )
    return Section("categories", "By harm category", (key, *blocks), lead=lead)
