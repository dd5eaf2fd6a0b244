"""`truing compare`: two or more runs, paired by sample; the first is the baseline."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from truing.analysis.comparison import Comparison, compare
from truing.analysis.deltas import Delta
from truing.analysis.rates import AXIS_TITLES
from truing.analysis.summary import summarise
from truing.analysis.verdict_table import cached_verdict_tables
from truing.core.errors import RunError, UserError
from truing.core.version import __version__
from truing.report.formatting import (
    category_label,
    format_difference,
    format_p_value,
    format_value,
    format_value_interval,
)
from truing.report.report_data import ReportData, Variant
from truing.runs.folder import Run


def command(
    *runs: Path,
    out: Path | None = None,
    margin: float = 0.05,
    card: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    with_text: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Compares runs with the first, paired by sample id: deltas with intervals, flips, and what may be said.

    Parameters
    ----------
    runs
        Two or more run folders; the first is the baseline.
    out
        Where the report goes, such as report.html; .md and .json are written beside it.
    margin
        The loss of degenerate, cut and benign answers that still counts as none (non-inferiority).
    card
        Cards of the runs' judges, for deltas that are transported from them.
    with_text
        Put prompts and answers into the report, blurred until clicked.
    json
        Print the comparison as JSON.
    """
    if len(runs) < 2:
        raise UserError("compare needs two run folders or more; the first is the baseline")
    if not 0 <= margin <= 1:
        raise UserError(f"--margin {margin}: does not lie in [0, 1]")
    from truing.cli.show import one_run, read_cards

    for path in runs:
        one_run(path)
    cards = read_cards(card)
    with cached_verdict_tables():
        made = compare_all(runs, margin, cards)
        for judge, path in cards.items():
            if not any(d.judge == judge for one in made.values() for d in one.deltas):
                raise RunError(
                    f"{path}: the card is of {judge}, which did not judge both runs in one version"
                )
        data = comparison_json(made) if json or out is not None else b""
        if out is not None:
            _write(runs, made, out, with_text=with_text, data=data, cards=cards)
    if json:
        sys.stdout.write(data.decode() + "\n")
        return 0
    for name, comparison in made.items():
        print_comparison(comparison, name)
    if out is not None:
        print(f"\nreport: {out}  (also .md and .json)")
    return 0


def compare_all(
    runs: tuple[Path, ...], margin: float, cards: Mapping[str, Path] | None = None
) -> dict[str, Comparison]:
    """Each run against the first, by a short name of its own."""
    names = names_of(runs)
    if len({p.resolve() for p in runs}) < len(runs):
        raise RunError("the same run folder is given twice")
    return {
        name: compare(runs[0], path, margin=margin, cards=cards)
        for name, path in zip(names[1:], runs[1:])
    }


def names_of(runs: tuple[Path, ...]) -> list[str]:
    """The shortest tails of the paths that tell the runs apart."""
    parts = [p.resolve().parts for p in runs]
    depth = 1
    while depth < max(map(len, parts)) and len({p[-depth:] for p in parts}) < len(parts):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def comparison_json(made: dict[str, Comparison]) -> bytes:
    """One comparison as it is; of several, an object by name."""
    import msgspec

    whole: Any = next(iter(made.values())) if len(made) == 1 else {"comparisons": made}
    return msgspec.json.format(msgspec.json.encode(whole), indent=1)


def tell(
    runs: tuple[Path, ...],
    made: dict[str, Comparison],
    *,
    with_text: bool,
    cards: Mapping[str, Path] | None = None,
) -> ReportData:
    """The story that the report's sections draw from."""
    from truing.analysis.judge_card import read_card
    from truing.analysis.judge_facts import facts_from_card
    from truing.report.rows import select_rows

    names = names_of(runs)
    data = ", ".join(dict.fromkeys(d.spec for d in Run(runs[0]).manifest.data)) or "data"
    variants = tuple(
        Variant(
            name=name,
            runs={data: str(path)},
            summaries={data: summarise(Run(path))},
            manifests={data: Run(path).manifest},
        )
        for name, path in zip(names, runs)
    )
    comparisons = {name: {data: one} for name, one in made.items()}
    sets = [Run(path).manifest.data for path in runs]
    mild = all(sets) and all(
        d.spec.split(",", 1)[0].startswith("builtin:") for of in sets for d in of
    )
    rows, left = select_rows(variants, comparisons, with_text=with_text or mild)
    notes = tuple(dict.fromkeys(note for one in made.values() for note in one.notes))
    return ReportData(
        title=" / ".join(names),
        created=date.today().isoformat(),
        version=__version__,
        baseline=names[0],
        variants=variants,
        data=(data,),
        comparisons=comparisons,
        rows=tuple(rows),
        rows_left_out=left,
        with_text=with_text or mild,
        notes=notes,
        facts=tuple(f for p in (cards or {}).values() for f in facts_from_card(read_card(p))),
    )


def _write(
    runs: tuple[Path, ...],
    made: dict[str, Comparison],
    out: Path,
    *,
    with_text: bool,
    data: bytes,
    cards: Mapping[str, Path],
) -> None:
    from truing.report import render
    from truing.runs.folder import replace_file

    story = tell(runs, made, with_text=with_text, cards=cards)
    drawn = render.build_sections(story)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out.with_suffix(".html"), render.render_html(story, drawn).encode())
    replace_file(out.with_suffix(".md"), render.render_markdown(story, drawn).encode())
    replace_file(out.with_suffix(".json"), data + b"\n")


def _row(d: Delta) -> tuple[str, ...]:
    from rich.markup import escape

    name = AXIS_TITLES.get(d.question, d.question)
    if d.estimate is None or d.lower is None or d.upper is None:
        return name, escape(d.judge), "–", "–", "–", "–", f"{d.unscored} unscored"
    shown = f"{format_difference(d.estimate)} [{100 * d.lower:+.1f}, {100 * d.upper:+.1f}]".replace(
        "-", "−"
    )
    rates = f"{100 * (d.rate_a or 0):.1f} → {100 * (d.rate_b or 0):.1f} %"
    p = format_p_value(d.p_adjusted if d.p_adjusted is not None else d.p)
    note = (
        "struck: selected by this judge"
        if d.selected_by_judge
        else f"{d.unscored} unscored"
        if d.unscored
        else ""
    )
    cells = (name, escape(d.judge), rates, escape(shown), p, f"{d.to_no} / {d.to_yes}", note)
    return tuple(
        f"[strike]{c}[/strike]" if c and d.selected_by_judge and c is not note else c for c in cells
    )


def print_comparison(made: Comparison, name: str) -> None:
    """The deltas over all categories, those of single categories that changed, and the claim with its grounds."""
    from rich.markup import escape

    from truing.cli.show import _console, _table

    console = _console()
    console.print(
        f"{name}: {made.model_b} against {made.model_a}, {made.n_shared:,} shared samples",
        markup=False,
    )
    table = _table(
        "", ["question", "judge", "rate", "delta, 95 %", "p adj.", "yes→no / no→yes", ""]
    )
    for d in made.deltas:
        if d.category is None and d.judge and not d.question.endswith("_predicted"):
            table.add_row(*_row(d))
    for m in made.means:
        rates = f"{format_value(m.mean_a)} → {format_value(m.mean_b)}"
        note = "struck: selected by this judge" if m.selected_by_judge else ""
        shown = escape(format_value_interval(m.delta, sign=True))
        shown = f"[strike]{shown}[/strike]" if note else shown
        table.add_row(
            f"mean of {m.question}", escape(m.judge), rates, shown, "", f"{m.n_pairs} pairs", note
        )
    console.print(table)
    moved = [
        d for d in made.deltas if d.category and d.p_adjusted is not None and d.p_adjusted < 0.05
    ]
    for d in moved[:12]:
        where = category_label(d.category, made.taxonomy)
        said = f"  {AXIS_TITLES.get(d.question, d.question)}, {where}: {format_difference(d.estimate or 0)}"
        console.print(f"{said}, adjusted p {format_p_value(d.p_adjusted)}", markup=False)
    console.print(f"{name} is {made.claim.word}.", style="bold", markup=False)
    for check in made.claim.checks:
        word = {True: "yes", False: "no", None: "not shown"}[check.passed]
        console.print(f"  {check.name}: {word} ({check.text})", markup=False)
    for note in made.notes:
        console.print(f"  {note}", markup=False)
