"""Harm and refusal by category, variants side by side, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from msgspec.structs import replace

from truing.analysis.rates import AXIS_TITLES, PREDICTED_SUFFIX, Rate
from truing.analysis.summary import RunSummary
from truing.report.blocks import Figure, Grid, Raw, Section, Table
from truing.report.charts.svg import Mark, interval_chart, legend_html
from truing.report.formatting import (
    SELECTED,
    category_label,
    category_name,
    format_percent,
    make_rate_cell,
)
from truing.report.report_data import ReportData
from truing.stats.intervals import wilson

_QUESTIONS = ("attack_success", "harmful", "harmful_predicted", "refuses_harmful", "answers_benign")
_WORDS = {
    **AXIS_TITLES,
    "harmful": "harmful answers (all prompts)",
    "harmful_predicted": "harmful answers by the judge's own categories",
}


def _rates(report: ReportData, data: str) -> Iterator[Rate]:
    for variant in report.variants:
        summary = variant.summaries.get(data)
        yield from (*summary.rates, *summary.axes) if summary else ()


def _categories(report: ReportData, data: str, question: str, judge: str) -> list[str | None]:
    return list(
        dict.fromkeys(
            rate.category
            for rate in _rates(report, data)
            if rate.question == question and rate.judge == judge and rate.category is not None
        )
    )


def _judges(report: ReportData, data: str, question: str) -> list[str]:
    """Returns the judges that are quoted for a question: one figure shows one judge."""
    quoted = []
    for variant in report.variants:
        summary = variant.summaries.get(data)
        if summary is None:
            continue
        rate = _find(summary, question, None, None)
        if rate is None:  # no figure over all categories
            of_question = (r for r in (*summary.axes, *summary.rates) if r.question == question)
            rate = next(of_question, None)
        if rate is not None:
            quoted.append(rate.judge)
    return list(dict.fromkeys(quoted))


def _find(
    summary: RunSummary, question: str, category: str | None, judge: str | None
) -> Rate | None:
    """Returns a rate, also of a category that the judge itself never assigned: 0 of n."""
    if not question.endswith(PREDICTED_SUFFIX):
        return summary.find(question, category, judge)
    judged_question = question.removesuffix(PREDICTED_SUFFIX)
    overall = summary.find(judged_question, None, judge)
    if category is None or overall is None:
        return overall
    rate = summary.find(question, category, overall.judge)
    if rate is not None or not overall.scored:
        return rate
    none_of_n = wilson(0, min(overall.scored, overall.prompts or overall.scored))
    return replace(
        overall,
        question=question,
        category=category,
        events=0,
        raw=none_of_n,
        corrected=None,
        pooled=None,
    )


def _same_as_attack_success(report: ReportData, data_name: str) -> bool:
    """Whether harm over all prompts equals attack success in every category.

    It does where benign prompts belong to no category: the second chart would repeat the first.
    """
    categories = dict.fromkeys(
        category
        for judge in _judges(report, data_name, "harmful")
        for category in _categories(report, data_name, "harmful", judge)
    )
    for summary in (v.summaries[data_name] for v in report.variants if data_name in v.summaries):
        for category in categories:
            both = [summary.find(q, category) for q in ("harmful", "attack_success")]
            if [(r.n, r.events) if r else None for r in both[:1]] != [
                (r.n, r.events) if r else None for r in both[1:]
            ]:
                return False
    return True


class _Chart(NamedTuple):
    """One question by one judge on one data set."""

    data: str
    question: str
    judge: str
    title: str


def _category_figure(report: ReportData, chart: _Chart) -> Figure | None:
    groups: list[tuple[str, list[Mark]]] = []
    struck: dict[str, None] = {}
    for category in _with_all(report, chart):
        marks = []
        for variant in report.variants:
            summary = variant.summaries.get(chart.data)
            rate = _find(summary, chart.question, category, chart.judge) if summary else None
            if rate is None or rate.raw is None:
                continue
            note = f", {rate.events} of {rate.scored}" + (
                f", struck: {rate.struck}" if rate.selected_by_judge else ""
            )
            if rate.selected_by_judge:
                struck[rate.struck or SELECTED] = None
            # Drawn, but without emphasis: leaving it out would hide that it was measured.
            hollow = rate.selected_by_judge or rate.small
            best = rate.corrected or rate.pooled or rate.raw
            if best is rate.pooled:
                note += ", pooled"
            marks.append(
                Mark(
                    variant.name,
                    best.estimate,
                    best.lower,
                    best.upper,
                    report.series(variant.name),
                    hollow,
                    note,
                    f"{rate.events} of {rate.scored}" if rate.small else "",
                )
            )
        if marks:
            groups.append((category_label(category), marks))
    if not groups:
        return None
    alt = "; ".join(
        f"{g}: {', '.join(f'{m.label} {m.value or format_percent(m.estimate, 0)}' for m in ms)}"
        for g, ms in groups
    )
    note = f"Struck, drawn hollow: {'; '.join(struck)}." if struck else ""
    return Figure(interval_chart(groups, chart.title), chart.title, alt, note)


def _with_all(report: ReportData, chart: _Chart) -> list[str | None]:
    # The judge's own categories have no total: an answer may have several.
    of_all: list[str | None] = [] if chart.question.endswith(PREDICTED_SUFFIX) else [None]
    return [*of_all, *_categories(report, chart.data, chart.question, chart.judge)]


def _category_table(report: ReportData, chart: _Chart) -> Table:
    grid = Grid(["category", *(v.name for v in report.variants)])
    for category in _with_all(report, chart):
        summaries = [v.summaries.get(chart.data) for v in report.variants]
        grid.add(
            category_name(category),
            *(
                make_rate_cell(_find(s, chart.question, category, chart.judge) if s else None)
                for s in summaries
            ),
        )
    return grid.table(chart.title, right=range(1, len(report.variants) + 1), folded=True)


def build_section(report: ReportData) -> Section | None:
    """Returns a chart and a table for each question, judge and data set with harm categories."""
    blocks: list[Figure | Table | Raw] = []
    for data_name in report.data:
        for question in _QUESTIONS:
            judges = _judges(report, data_name, question)
            if question == "harmful" and _same_as_attack_success(report, data_name):
                continue
            for judge in judges:
                if not _categories(report, data_name, question, judge):
                    continue
                by = f" by {judge}" if len(judges) > 1 else ""
                chart = _Chart(data_name, question, judge, f"{data_name}: {_WORDS[question]}{by}")
                figure = _category_figure(report, chart)
                if figure is not None:
                    blocks += [figure, _category_table(report, chart)]
    if not blocks:
        return None
    key = Raw(legend_html([v.name for v in report.variants]))
    lead = (
        "Hollow marks rest on fewer than 30 rows, or on a judge that may not measure the variant: "
        "read counts, not order. Rates of fewer than 30 rows are drawn towards those of the other "
        "categories (“pooled”), since so few rows say little by themselves."
    )
    return Section("categories", "By harm category", (key, *blocks), lead=lead)
