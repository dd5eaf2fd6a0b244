"""`truing report`: one report on any runs, made from what is on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from cyclopts import Parameter

from truing.cli.parameters import Flag, OptionalPaths
from truing.cli.tables import print_json, print_next_steps, print_text
from truing.core.errors import RunError, UserError, did_you_mean
from truing.report.limits import MAX_HARM

if TYPE_CHECKING:
    from truing.report.assembly import RunsByVariant


@Parameter(name="*")
@dataclass(frozen=True)
class LimitFlags:
    """What counts as safe enough, and as still useful.

    Parameters
    ----------
    max_harm
        Largest share of harmful answers to harmful prompts that counts as safe enough.
    margin
        Loss of complete, usable answers to benign prompts that still counts as none.
    """

    max_harm: float = MAX_HARM
    margin: float = 0.05


def command(
    *runs: Path,
    out: Path = Path("."),
    baseline: str | None = None,
    title: str | None = None,
    limits: LimitFlags | None = None,
    card: OptionalPaths = None,
    pdf: Path | None = None,
    with_text: Flag = False,
    json: Flag = False,
) -> int:
    """Writes OUT/report.html, .md and .json on runs, without a call to a model or a judge.

    Runs on the same data set are compared with the baseline's.

    Parameters
    ----------
    runs
        Run folders, or output folders of `truing run`.
    out
        Folder for the report.
    baseline
        Name of the variant that the others are compared with (default: the first).
    title
        Title of the report (default: the names of the variants).
    card
        Cards of the runs' judges, for differences that are transported from them.
    pdf
        Also print the report to this file (extra `pdf`, and Chromium).
    with_text
        Include prompts and answers, blurred until clicked. Built-in data are mild and always shown.
    json
        Print the paths of the report as JSON.
    """
    from truing.analysis.claims import find_margin_fault
    from truing.cli.run_folders import cards_by_judge
    from truing.cli.show import print_report
    from truing.report import render
    from truing.report.assembly import ReportOptions, assemble_report
    from truing.report.limits import find_max_harm_fault
    from truing.report.pdf import write_pdf

    if not runs:
        raise UserError("report: give at least one run folder")
    limits = limits or LimitFlags()
    if fault := find_margin_fault(limits.margin):
        raise UserError(f"--margin {fault}")
    if fault := find_max_harm_fault(limits.max_harm):
        raise UserError(f"--max-harm {fault}")
    grouped = group_runs(runs)
    first = next(iter(grouped))
    if baseline is not None and baseline not in grouped:
        raise UserError(f"--baseline {baseline!r}: no such run{did_you_mean(baseline, grouped)}")
    options = ReportOptions(
        title=title or " / ".join(grouped),
        baseline=baseline or first,
        margin=limits.margin,
        max_harm=limits.max_harm,
        cards=cards_by_judge(card),
        with_text=with_text,
    )
    report = assemble_report(grouped, options)
    paths = render.write_report(report, out)
    if pdf is not None:
        write_pdf(paths["html"], pdf)
        paths["pdf"] = pdf
    if json:
        print_json(msgspec.json.encode({name: str(path) for name, path in paths.items()}))
        return 0
    print_report(report)
    print_text(f"\nreport: {paths['html']}  (also .md and .json)")
    if pdf is not None:
        print_text(f"pdf: {pdf}")
    print_next_steps(
        [("truing", "evidence", *runs, "--for", "nist", "system-card", "--out", out / "evidence")]
    )
    return 0


def group_runs(folders: tuple[Path, ...]) -> RunsByVariant:
    """Returns the runs of some folders by variant and data set.

    A run of a plan lies in OUT/VARIANT/DATA and has these names; another run is a variant by the
    name of its folder, and its data set is called by its spec. Raises RunError if two runs have the
    same names.
    """
    from truing.cli.run_folders import find_runs, short_run_names

    runs_by_folder = [(folder, run) for folder in folders for run in find_runs(folder)]
    singles = [run for folder, run in runs_by_folder if run == folder]
    names = dict(zip(singles, short_run_names(singles))) if singles else {}
    grouped: dict[str, dict[str, Path]] = {}
    for folder, run in runs_by_folder:
        if run == folder:
            variant, data_name = names[run], _data_name(run)
        else:
            variant = run.parent.name if run.parent != folder else run.name
            data_name = run.name if run.parent != folder else _data_name(run)
        if data_name in grouped.setdefault(variant, {}):
            raise RunError(
                f"{run}: {grouped[variant][data_name]} has the same names, {variant} on "
                f"{data_name}; rename one of the folders, or make two reports"
            )
        grouped[variant][data_name] = run
    return grouped


def _data_name(run: Path) -> str:
    from truing.runs.folder import Run

    return ", ".join(dict.fromkeys(d.spec for d in Run(run).manifest.data)) or "data"
