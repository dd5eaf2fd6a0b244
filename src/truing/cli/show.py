"""`truing show`: the rates of a run, or of all runs of a plan, as tables in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET
from msgspec.structs import replace
from rich.console import Console
from rich.markup import escape

from truing.cli.parameters import Flag, OptionalPaths
from truing.cli.tables import (
    escape_line,
    make_console,
    make_table,
    print_json,
    print_next_steps,
    strike,
)

if TYPE_CHECKING:
    from truing.analysis.agent_outcomes import AgentSummary
    from truing.analysis.rates import Rate
    from truing.analysis.summary import RunSummary
    from truing.report.report_data import ReportData

_TITLES = {
    "harmful": "harmful answers",
    "refused": "refusals",
    "degenerate": "degenerate answers",
}
# The questions in the headline table of a plan, most important first.
_HEADLINE_QUESTIONS = (
    "attack_success",
    "harmful_benign",
    "refuses_harmful",
    "answers_benign",
    "passes_checks",
    "completes_tasks",
    "follows_injections",
    "degenerate",
    "cut",
    "clarifies",
    "abstains",
    "asserts_unanswerable",
    "supports",
)


def command(
    run: Path,
    /,
    *,
    category: Flag = False,
    card: OptionalPaths = None,
    json: Flag = False,
) -> int:
    """Shows the rates of a run, or of every run below a folder.

    Parameters
    ----------
    run
        A run folder, or the output folder of a plan.
    category
        Show a row for each harm category too.
    card
        Cards of this run's judges (from `truing card`), for rates that are transported from them.
    json
        Print the summaries as JSON.
    """
    from truing.analysis.summary import summarise
    from truing.cli.run_folders import cards_by_judge, find_runs
    from truing.runs.folder import Run

    cards = cards_by_judge(card)
    summaries = {folder: summarise(Run(folder), cards) for folder in find_runs(run)}
    if json:
        content: RunSummary | dict[str, RunSummary]
        content = {str(folder): summary for folder, summary in summaries.items()}
        if len(content) == 1:
            (content,) = content.values()
        print_json(msgspec.json.encode(content))
        return 0
    for folder, summary in summaries.items():
        print_summary(folder, summary, by_category=category)
    print_next_steps([("truing", "report", run, "--out", f"{run}-report"), ("truing", "ui", run)])
    return 0


def _question_title(question: str) -> str:
    from truing.analysis.rates import AXIS_TITLES

    return AXIS_TITLES.get(question) or _TITLES.get(question, question)


def print_report(report: ReportData) -> None:
    """Prints the answers to the questions that the plan shows, the headline rates by variant, the
    three answers of the report's first page, and the conclusion of each comparison.
    """
    from truing.report.formatting import rows_by_judge

    console = make_console()
    _print_shown(console, report)
    columns = ["", "data", "judge", *(variant.name for variant in report.variants)]
    table = make_table(report.title, columns)
    for data_name in report.data:
        for question in _HEADLINE_QUESTIONS:
            summaries = [variant.summaries.get(data_name) for variant in report.variants]
            rates = [s.find(question) if s is not None else None for s in summaries]
            measured = [rate if rate is not None and rate.n else None for rate in rates]
            for judge, of_judge in rows_by_judge(measured):
                title = _question_title(question)
                table.add_row(title, data_name, judge, *map(_rate_cell, of_judge))
    console.print(table)
    for answer in report.answers:
        if answer.variant == report.focus:
            console.print(f"{answer.variant}: {answer.describe()}", markup=False)
    for variant_name, by_data in report.comparisons.items():
        for data_name, comparison in by_data.items():
            claim = comparison.claims[0]
            console.print(
                f"{variant_name} against {report.baseline} on {data_name}: {comparison.claim.word} "
                f"({claim.short_reason or claim.reason})",
                markup=False,
            )


def _print_shown(console: Console, report: ReportData) -> None:
    from truing.report.sections.shown import describe_outcome, describe_question

    for question in report.shown:
        console.print(describe_question(question), style="bold", markup=False)
        for variant, answer in question.answers.items():
            text = escape_line(" ".join(answer.text.split()))
            console.print(f"  {variant}: {text} [{describe_outcome(answer)}]", markup=False)
    if report.shown:
        console.print()


def print_summary(folder: Path, summary: RunSummary, *, by_category: bool = False) -> None:
    """Prints the rates of a run by every judge, the means, and what was not tested."""
    from truing.report.formatting import axis_title, category_label, format_value_interval

    console = make_console()
    console.print(
        f"{folder}: {summary.model} on {', '.join(summary.data)}; {summary.responses:,} answers",
        markup=False,
    )
    if not summary.complete:
        console.print("The run is not complete: every figure may still change.", style="bold")
    table = make_table("", ["question", "judge", "raw", "corrected", "transported", "bounds"])
    for rate in (*summary.rates, *summary.axes):
        if rate.category is None:
            if rate.question.endswith("_predicted"):
                continue
            name = axis_title(summary, rate.question, _question_title(rate.question))
            name = f"{name} ({rate.group} prompts)" if rate.group else name
        elif by_category:
            name = f"  {category_label(rate.category, summary.taxonomy)}"
        else:
            continue
        # The raw column shows the uncorrected rate, the next one the corrected rate.
        raw = _rate_cell(replace(rate, corrected=None))
        cells = (raw, _corrected_cell(rate), _transported_cell(rate), _bounds_cell(rate))
        table.add_row(name, rate.judge, *cells)
    for mean in summary.means:
        missing = f", {mean.missing} without" if mean.missing else ""
        cell = escape(f"{format_value_interval(mean.value)}, {mean.n} values{missing}")
        if mean.selected_by_judge:
            cell = f"{strike(cell)} struck"
        table.add_row(f"mean of {mean.question}", mean.judge, cell, "", "", "")
    console.print(table)
    if summary.agents is not UNSET:
        _print_agents(console, summary.model, summary.agents)
    if summary.failed:
        console.print(f"{summary.failed} answers failed; they count as unscored, never as safe.")
    if summary.cost is not UNSET:
        console.print(f"{summary.cost.describe().capitalize()}.", markup=False)
    for relation in summary.lineage:
        consequence = "struck" if relation.consequence == "strike" else "a second judge is needed"
        console.print(f"{relation.text}: {consequence}.", markup=False)
    for note in summary.notes:
        console.print(note, markup=False)
    if summary.not_tested:
        console.print("Not tested: " + "; ".join(summary.not_tested) + ".", markup=False)


def _print_agents(console: Console, model: str, agents: AgentSummary) -> None:
    """Prints the figures of an agent's tasks, and the outcomes over all worlds."""
    from truing.analysis.agent_outcomes import AGENT_OUTCOMES
    from truing.report.sections.agents import agent_notes, figure_text

    figures = make_table("tasks of agents", ["figure", "tasks", "share"])
    for figure in agents.figures:
        figures.add_row(figure.name, figure.kind, escape(figure_text(figure)))
    console.print(figures)
    outcomes = make_table("", ["task", "n", *AGENT_OUTCOMES])
    for row in agents.outcomes:
        if row.world is None:
            counts = (str(getattr(row, outcome)) for outcome in AGENT_OUTCOMES)
            outcomes.add_row(row.kind, str(row.n), *counts)
    console.print(outcomes)
    for note in agent_notes(model, agents):
        console.print(note, markup=False)


def _rate_cell(rate: Rate | None) -> str:
    from truing.report.formatting import format_rate

    if rate is None:
        return "–"
    cell = escape(format_rate(rate))
    if rate.unscored:
        cell += f" ({rate.unscored} unscored)"
    return f"{strike(cell)} struck" if rate.selected_by_judge else cell


def _bounds_cell(rate: Rate) -> str:
    """The rate if all unscored answers had gone one way, and the other; empty if all are scored."""
    from truing.report.formatting import format_percent

    return (
        f"{format_percent(rate.bounds[0])} to {format_percent(rate.bounds[1])}"
        if rate.unscored
        else ""
    )


def _corrected_cell(rate: Rate) -> str:
    from truing.report.formatting import format_percent

    corrected = rate.corrected
    if corrected is None:
        return ""
    interval = f"[{100 * corrected.lower:.1f}, {100 * corrected.upper:.1f}]"
    method = f"{corrected.method}, {corrected.labels} labels"
    return escape(f"{format_percent(corrected.estimate)} {interval} {method}")


def _transported_cell(rate: Rate) -> str:
    from truing.report.formatting import format_percent

    transported = rate.transported
    if transported is None:
        return ""
    if transported.estimate is None or transported.lower is None or transported.upper is None:
        return escape(f"refused: {transported.refused}")
    interval = f"[{100 * transported.lower:.1f}, {100 * transported.upper:.1f}]"
    band = ""
    if transported.band:
        band = f", band [{100 * transported.band[0]:.1f}, {100 * transported.band[1]:.1f}]"
    return escape(f"{format_percent(transported.estimate)} {interval}{band} {transported.note}")
