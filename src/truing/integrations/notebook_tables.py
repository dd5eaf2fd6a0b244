"""Runs, summaries, comparisons and reports as small tables in HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from truing.analysis.comparison import Comparison
from truing.analysis.rates import AXIS_TITLES, PREDICTED_SUFFIX
from truing.analysis.summary import RunSummary
from truing.report.formatting import format_difference_interval, format_rate
from truing.report.report_data import ReportData

_ROW_LIMIT = 40


def summary_html(summary: RunSummary, *, title: str = "") -> str:
    """Returns the rates of a run as a table: one row a question and judge, without categories."""
    rows = []
    for rate in (*summary.axes, *summary.rates):
        if rate.category is not None or rate.question.endswith(PREDICTED_SUFFIX):
            continue
        value = format_rate(rate)
        if rate.unscored:
            value += f" ({rate.unscored} unscored)"
        if rate.selected_by_judge:
            value += " (struck)"
        name = AXIS_TITLES.get(rate.question, rate.question)
        rows.append((f"{name} ({rate.group} prompts)" if rate.group else name, rate.judge, value))
    caption = f"{title or summary.model}: {summary.responses:,} answers"
    if not summary.complete:
        caption += "; not complete, every figure may still change"
    return _table(caption, ("question", "judge", "rate, 95 %"), rows, summary.notes)


def comparison_html(comparison: Comparison) -> str:
    """Returns the claims and the differences of a comparison as two tables."""
    claims = [(claim.claim, claim.decision, claim.reason) for claim in comparison.claims]
    differences = [
        (
            AXIS_TITLES.get(delta.question, delta.question),
            delta.judge,
            _difference(delta.estimate, delta.lower, delta.upper),
        )
        for delta in comparison.deltas
        if delta.category is None and not delta.question.endswith(PREDICTED_SUFFIX)
    ]
    caption = f"{comparison.model_b} against {comparison.model_a}: {comparison.claim.word}"
    return _table(caption, ("claim", "decision", "why"), claims) + _table(
        f"differences over {comparison.n_shared:,} shared samples",
        ("question", "judge", "difference, 95 %"),
        differences,
        comparison.notes,
    )


def report_html(report: ReportData) -> str:
    """Returns the answers of a report's first page as a table: one row a variant and question."""
    rows = [
        (answer.variant, answer.title, answer.word, answer.figure, answer.reason, answer.needs)
        for answer in report.answers
    ]
    columns = ("variant", "question", "answer", "figure, 95 %", "why", "would settle it")
    return _table(f"{report.title}: against {report.baseline}", columns, rows, report.notes)


def _difference(estimate: float | None, lower: float | None, upper: float | None) -> str:
    if estimate is None or lower is None or upper is None:
        return "not measured"
    return format_difference_interval(estimate, lower, upper)


def _table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Iterable[str] = (),
) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        style = ' style="text-align:left"'
        return "<tr>" + "".join(f"<{tag}{style}>{escape(c)}</{tag}>" for c in cells) + "</tr>"

    body = "".join(line("td", row) for row in rows[:_ROW_LIMIT])
    below = "".join(f"<p><small>{escape(note)}</small></p>" for note in notes)
    if len(rows) > _ROW_LIMIT:
        below = f"<p><small>{len(rows) - _ROW_LIMIT} more rows</small></p>{below}"
    return (
        f'<table><caption style="text-align:left">{escape(caption)}</caption>'
        f"<thead>{line('th', columns)}</thead><tbody>{body}</tbody></table>{below}"
    )
