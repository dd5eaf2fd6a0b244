"""`truing compare`: compares runs with a baseline (the first one), paired by sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.markup import escape

from truing.cli.parameters import Flag, OptionalPaths
from truing.cli.tables import (
    make_console,
    make_table,
    print_json,
    print_next_steps,
    print_text,
    strike,
)
from truing.core.errors import RunError, UserError
from truing.core.private_files import create_folder

if TYPE_CHECKING:
    from truing.analysis.comparison import Comparison
    from truing.analysis.deltas import Delta
    from truing.report.report_data import ReportData

# Changed categories that are printed; the report has all of them.
MAX_CATEGORIES = 12
_STRUCK_NOTE = "struck"


def command(
    *runs: Path,
    out: Path | None = None,
    margin: float = 0.05,
    card: OptionalPaths = None,
    with_text: Flag = False,
    json: Flag = False,
) -> int:
    """Compares runs with the first one, paired by sample id: differences, flips, and a conclusion.

    Parameters
    ----------
    runs
        Two or more run folders; the first is the baseline.
    out
        The report to write, such as report.html; .md and .json are written to the same folder.
    margin
        Loss of complete, usable answers to benign prompts that still counts as none
        (non-inferiority).
    card
        Cards of the runs' judges, for differences that are transported from them.
    with_text
        Include prompts and answers in the report, blurred until clicked.
    json
        Print the comparison as JSON.
    """
    from truing.analysis.claims import find_margin_fault
    from truing.analysis.verdict_table import cached_verdict_tables
    from truing.cli.run_folders import cards_by_judge, open_run

    if len(runs) < 2:
        raise UserError("compare: give two or more run folders; the first is the baseline")
    if fault := find_margin_fault(margin):
        raise UserError(f"--margin {fault}")
    for path in runs:
        open_run(path)  # raises for a folder of runs, before any of them is read
    cards = cards_by_judge(card)
    with cached_verdict_tables():
        comparisons = compare_with_baseline(runs, margin, cards)
        _check_cards_used(comparisons, cards)
        content = comparison_json(comparisons) if json or out is not None else b""
        if out is not None:
            report = build_report_data(runs, comparisons, with_text=with_text, cards=cards)
            _write_report(report, content, out)
    if json:
        print_json(content)
        return 0
    for name, comparison in comparisons.items():
        print_comparison(comparison, name)
    if out is not None:
        print_text(f"\nreport: {out}  (also .md and .json)")
    print_next_steps([("truing", "view", *runs, "--open")])
    return 0


def compare_with_baseline(
    runs: tuple[Path, ...], margin: float, cards: Mapping[str, Path] | None = None
) -> dict[str, Comparison]:
    """Compares each run with the first; returns the comparisons by short names of the runs."""
    from truing.analysis.comparison import adjust_comparisons, compare
    from truing.cli.run_folders import short_run_names

    if len({p.resolve() for p in runs}) < len(runs):
        raise RunError("the same run folder is given twice")
    names = short_run_names(runs)
    comparisons = [compare(runs[0], path, margin=margin, cards=cards) for path in runs[1:]]
    return dict(zip(names[1:], adjust_comparisons(comparisons)))


def _check_cards_used(comparisons: Mapping[str, Comparison], cards: Mapping[str, Path]) -> None:
    """Raises RunError for a card of a judge that has no difference to transport."""
    judges = {delta.judge for comparison in comparisons.values() for delta in comparison.deltas}
    for judge, path in cards.items():
        if judge not in judges:
            raise RunError(
                f"{path}: the card is of {judge}, which did not judge both runs in one version"
            )


def comparison_json(comparisons: dict[str, Comparison]) -> bytes:
    """Returns a single comparison as it is, several as an object by name with all claims."""
    claims = [claim for comparison in comparisons.values() for claim in comparison.claims]
    content: Any = {"comparisons": comparisons, "claims": claims}
    if len(comparisons) == 1:
        (content,) = comparisons.values()
    return msgspec.json.format(msgspec.json.encode(content), indent=1)


def build_report_data(
    runs: tuple[Path, ...],
    comparisons: dict[str, Comparison],
    *,
    with_text: bool,
    cards: Mapping[str, Path] | None = None,
) -> ReportData:
    """Returns the data that the report's sections are rendered from."""
    from truing.cli.run_folders import short_run_names
    from truing.report.assembly import ReportOptions, assemble_report
    from truing.runs.folder import Run

    names = short_run_names(runs)
    data = ", ".join(dict.fromkeys(d.spec for d in Run(runs[0]).manifest.data)) or "data"
    options = ReportOptions(
        title=" / ".join(names), baseline=names[0], cards=cards or {}, with_text=with_text
    )
    by_variant = {name: {data: comparison} for name, comparison in comparisons.items()}
    return assemble_report(
        {name: {data: path} for name, path in zip(names, runs)}, options, by_variant
    )


def _write_report(report: ReportData, comparison: bytes, out: Path) -> None:
    from truing.core.private_files import replace_file
    from truing.report import render

    sections = render.build_sections(report)
    create_folder(out.parent)
    replace_file(out.with_suffix(".html"), render.render_html(report, sections).encode())
    replace_file(out.with_suffix(".md"), render.render_markdown(report, sections).encode())
    replace_file(out.with_suffix(".json"), comparison + b"\n")


def print_comparison(comparison: Comparison, name: str) -> None:
    """Prints the differences, the categories that changed significantly, and the conclusion."""
    from truing.analysis.rates import AXIS_TITLES
    from truing.report.formatting import (
        category_label,
        format_difference,
        format_p_value,
        format_value,
        format_value_interval,
    )

    console = make_console()
    console.print(
        f"{name}: {comparison.model_b} against {comparison.model_a}, "
        f"{comparison.n_shared:,} shared samples",
        markup=False,
    )
    table = make_table(
        "", ["question", "judge", "rate", "delta, 95 %", "p adj.", "yes→no / no→yes", ""]
    )
    for delta in comparison.deltas:
        if delta.category is None and delta.judge and not delta.question.endswith("_predicted"):
            table.add_row(*_delta_cells(delta))
    for mean in comparison.means:
        means = f"{format_value(mean.mean_a)} → {format_value(mean.mean_b)}"
        interval = escape(format_value_interval(mean.delta, sign=True))
        note = ""
        if mean.selected_by_judge:
            interval, note = strike(interval), _STRUCK_NOTE
        label, pairs = f"mean of {mean.question}", f"{mean.n_pairs} pairs"
        table.add_row(label, escape(mean.judge), means, interval, "", pairs, note)
    console.print(table)
    for reason in dict.fromkeys(d.struck for d in comparison.deltas if d.struck):
        console.print(f"{reason}: struck.", markup=False)

    changed = [d for d in comparison.deltas if d.category and _is_significant(d)]
    for delta in changed[:MAX_CATEGORIES]:
        question = AXIS_TITLES.get(delta.question, delta.question)
        category = category_label(delta.category, comparison.taxonomy)
        console.print(
            f"  {question}, {category}: {format_difference(delta.estimate or 0)}, "
            f"adjusted p {format_p_value(delta.p_adjusted)}",
            markup=False,
        )
    conclusion = comparison.claim
    because = f" ({conclusion.short_reason})" if conclusion.short_reason else ""
    console.print(f"{name} is {conclusion.word}{because}.", style="bold", markup=False)
    for check in comparison.claim.checks:
        console.print(f"  {check.describe()}", markup=False)
    print_claim_basis(console, comparison)
    for line in comparison.notes:
        console.print(f"  {line}", markup=False)


def print_claim_basis(console: Console, comparison: Comparison) -> None:
    """Prints what the claim rests on, and what would settle it."""
    for claim in comparison.claims[:1]:
        # With several variants, a claim may fail although each of its conditions holds.
        if claim.decision != "yes" and all(c.passed for c in comparison.claim.checks):
            console.print(f"  {claim.reason}", markup=False)
        for assumption in claim.assumptions:
            console.print(f"  assumes: {assumption}", markup=False)
        if claim.needs:
            console.print(f"  needs: {claim.needs}", markup=False)


def _is_significant(delta: Delta) -> bool:
    return delta.p_adjusted is not None and delta.p_adjusted < 0.05


def _delta_cells(delta: Delta) -> tuple[str, ...]:
    """Returns the table row of a difference, struck if the judge helped to make the model."""
    from truing.analysis.rates import AXIS_TITLES
    from truing.report.formatting import format_difference, format_p_value

    name = AXIS_TITLES.get(delta.question, delta.question)
    judge = escape(delta.judge)
    if delta.estimate is None or delta.lower is None or delta.upper is None:
        return name, judge, "–", "–", "–", "–", f"{delta.unscored} unscored"
    rates = f"{100 * (delta.rate_a or 0):.1f} → {100 * (delta.rate_b or 0):.1f} %"
    interval = f"[{100 * delta.lower:+.1f}, {100 * delta.upper:+.1f}]"
    estimate = escape(f"{format_difference(delta.estimate)} {interval}".replace("-", "−"))
    p = format_p_value(delta.p_adjusted if delta.p_adjusted is not None else delta.p)
    cells = (name, judge, rates, estimate, p, f"{delta.to_no} / {delta.to_yes}")
    if delta.selected_by_judge:
        return *(strike(cell) if cell else cell for cell in cells), _STRUCK_NOTE
    return *cells, f"{delta.unscored} unscored" if delta.unscored else ""
