"""`truing show`: a run, or all runs of a plan, as tables in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from truing.analysis.rates import AXIS_TITLES, Rate
from truing.analysis.summary import RunSummary, summarise
from truing.core.errors import RunError
from truing.report.formatting import (
    category_label,
    format_percent,
    format_rate,
    format_value_interval,
)
from truing.report.report_data import ReportData
from truing.runs.folder import Run

_WORDS = {
    **AXIS_TITLES,
    "harmful": "harmful answers",
    "refused": "refusals",
    "degenerate": "degenerate answers",
}
_FIRST = (
    "attack_success",
    "harmful_benign",
    "refuses_harmful",
    "answers_benign",
    "passes_checks",
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
    category: Annotated[bool, Parameter(negative="")] = False,
    card: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Shows the rates of a run, or of every run below a folder.

    Parameters
    ----------
    run
        A run folder, or the folder of a plan.
    category
        Also a line for each harm category.
    card
        Cards of this run's judges (from `truing card`), for rates that are transported from them.
    json
        Print the summaries as JSON.
    """
    cards = read_cards(card)
    summaries = {folder: summarise(Run(folder), cards) for folder in find_runs(run)}
    if json:
        import msgspec

        made: Any = (
            {str(k): v for k, v in summaries.items()}
            if len(summaries) > 1
            else next(iter(summaries.values()))
        )
        sys.stdout.write(msgspec.json.encode(made).decode() + "\n")
        return 0
    for folder, summary in summaries.items():
        show_summary(folder, summary, by_category=category)
    return 0


def read_cards(paths: Sequence[Path] | None) -> dict[str, Path]:
    """The judges that some cards are of: judge -> path."""
    from truing.analysis.judge_card import read_card

    return {read_card(path).judge: path for path in paths or ()}


def find_runs(folder: Path) -> list[Path]:
    """The folder itself if it is a run, else the runs up to two levels below it; RunError if there are none."""
    if (folder / "manifest.json").is_file():
        return [folder]
    found = sorted(
        p.parent for depth in ("*", "*/*") for p in folder.glob(f"{depth}/manifest.json")
    )
    if not found:
        raise RunError(f"{folder}: neither a run folder (no manifest.json) nor a folder of runs")
    return found


def one_run(folder: Path) -> Run:
    """The run at a folder; RunError that names the runs below it, if it is a folder of runs."""
    found = find_runs(folder)
    if found != [folder]:
        raise RunError(
            f"{folder}: holds {len(found)} runs; name one: {', '.join(str(p) for p in found[:6])}"
        )
    return Run(folder)


def _console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 150, highlight=False)


def _table(title: str, columns: Sequence[str]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False
    )
    for at, name in enumerate(columns):
        table.add_column(name, justify="left" if at == 0 else "right", overflow="fold")
    return table


def _mark(rate: Rate | None) -> str:
    from rich.markup import escape

    if rate is None:
        return "–"
    shown = escape(format_rate(rate))
    if rate.unscored:
        shown += f" ({rate.unscored} unscored)"
    return f"[strike]{shown}[/strike] struck" if rate.selected_by_judge else shown


def print_story(story: ReportData) -> None:
    """The headline figures of a plan, a column a variant, and what may be said of each against the baseline."""
    console = _console()
    table = _table(story.title, ["", *(v.name for v in story.variants)])
    for question in _FIRST:
        rates = [v.find(question) for v in story.variants]
        if any(r is not None for r in rates):
            table.add_row(_WORDS.get(question, question), *map(_mark, rates))
    console.print(table)
    for variant, by_data in story.comparisons.items():
        for data, comparison in by_data.items():
            claim = comparison.claim
            open_ = [c.name for c in claim.checks if not c.passed]
            why = "" if claim.safer else f" (not shown: {'; '.join(open_)})"
            console.print(
                f"{variant} against {story.baseline} on {data}: {claim.word}{why}", markup=False
            )


def show_summary(folder: Path, summary: RunSummary, *, by_category: bool = False) -> None:
    """One run: its rates by every judge, raw beside corrected, means in judges' own units, and what was not tested."""
    from rich.markup import escape

    console = _console()
    console.print(
        f"{folder}: {summary.model} on {', '.join(summary.data)}; {summary.responses:,} answers",
        markup=False,
    )
    table = _table("", ["question", "judge", "raw", "corrected", "transported", "bounds"])
    for rate in (*summary.rates, *summary.axes):
        if rate.category is not None and not by_category:
            continue
        name = _WORDS.get(rate.question, rate.question)
        if rate.category is not None:
            name = f"  {category_label(rate.category, summary.taxonomy)}"
        elif rate.question.endswith("_predicted"):
            continue
        table.add_row(
            name, rate.judge, _mark(_raw(rate)), _corrected(rate), _transported(rate), _bounds(rate)
        )
    for mean in summary.means:
        missing = f", {mean.missing} without" if mean.missing else ""
        shown = escape(f"{format_value_interval(mean.value)}, {mean.n} values{missing}")
        shown = f"[strike]{shown}[/strike] struck" if mean.selected_by_judge else shown
        table.add_row(f"mean of {mean.question}", mean.judge, shown, "", "", "")
    console.print(table)
    if summary.failed:
        console.print(f"{summary.failed} answers failed; they count as unscored, never as safe.")
    for note in summary.notes:
        console.print(note, markup=False)
    if summary.not_tested:
        console.print("Not tested: " + "; ".join(summary.not_tested) + ".", markup=False)


def _raw(rate: Rate) -> Rate:
    from msgspec.structs import replace

    return replace(rate, corrected=None)


def _bounds(rate: Rate) -> str:
    return (
        f"{format_percent(rate.bounds[0])} to {format_percent(rate.bounds[1])}"
        if rate.unscored
        else ""
    )


def _corrected(rate: Rate) -> str:
    from rich.markup import escape

    c = rate.corrected
    if c is None:
        return ""
    return escape(
        f"{format_percent(c.estimate)} [{100 * c.lower:.1f}, {100 * c.upper:.1f}] {c.method}, {c.labels} labels"
    )


def _transported(rate: Rate) -> str:
    from rich.markup import escape

    t = rate.transported
    if t is None:
        return ""
    if t.estimate is None or t.lower is None or t.upper is None:
        return escape(f"refused: {t.refused}")
    band = f", band [{100 * t.band[0]:.1f}, {100 * t.band[1]:.1f}]" if t.band else ""
    return escape(
        f"{format_percent(t.estimate)} [{100 * t.lower:.1f}, {100 * t.upper:.1f}]{band} {t.note}"
    )
