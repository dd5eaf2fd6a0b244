"""Evidence as Markdown: a section for each item, a row for each figure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from truing.analysis.rates import AXIS_TITLES
from truing.report.evidence import Evidence, EvidenceFigure, ItemEvidence


def render_evidence(evidence: Evidence, folder: Path) -> str:
    """Returns the page; links to runs are relative to the `folder` that it is written into."""
    measured = sum(item_evidence.status == "measured" for item_evidence in evidence.items)
    lines = [
        f"# {evidence.title}",
        "",
        f"Made by truing {evidence.version} on {evidence.created} from the runs that are linked. "
        f"{measured} of {len(evidence.items)} items have figures; the others say why not. "
        "Intervals are 95 %. No figure here means that a model is safe.",
    ]
    if evidence.note:
        lines += ["", f"**{evidence.note}**"]
    if evidence.source:
        lines += ["", f"Source of the items: <{evidence.source}>"]
    for item_evidence in evidence.items:
        # The items of our own system card have no number that anybody would look up.
        title = (
            f"{item_evidence.id} {item_evidence.name}" if evidence.source else item_evidence.name
        )
        lines += ["", f"## {title}", "", *_item_lines(item_evidence, folder)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _item_lines(item_evidence: ItemEvidence, folder: Path) -> list[str]:
    lines = (
        []
        if item_evidence.status == "measured"
        else [f"*{item_evidence.status.capitalize()}.*", ""]
    )
    if item_evidence.figures:
        lines += [
            "| variant | data | what | figure | answers | judge |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_figure_row(figure, folder) for figure in item_evidence.figures]
        lines.append("")
    lines += [f"- {_plain(statement)}" for statement in item_evidence.statements]
    lines += [""] if item_evidence.statements else []
    if item_evidence.gaps:
        lines += [f"Not tested here: {'; '.join(map(_plain, item_evidence.gaps))}.", ""]
    if item_evidence.outside:
        lines += [f"Outside of these runs: {item_evidence.outside}", ""]
    if item_evidence.rails:
        rails = ", ".join(item_evidence.rails)
        lines += [
            f"Rails that control it (what they achieve is in guarded runs alone): {rails}.",
            "",
        ]
    return lines


def _figure_row(figure: EvidenceFigure, folder: Path) -> str:
    label = AXIS_TITLES.get(figure.question, figure.question.replace("_", " "))
    if figure.category is not None:
        label = f"{label}, prompts of {figure.category}"
    rate = f"{figure.estimate:.1%} [{figure.lower:.1%}, {figure.upper:.1%}] {figure.figure}"
    if figure.struck:
        rate = f"~~{rate}~~ {_plain(figure.struck)}"
    if not figure.complete:
        rate = f"{rate}, of a run that is not complete"
    answers = f"{figure.n}" + (f", {figure.unscored} unscored" if figure.unscored else "")
    link = posixpath.relpath(Path(figure.run).resolve().as_posix(), folder.resolve().as_posix())
    cells: Sequence[str] = (
        _plain(figure.variant),
        f"[{_plain(figure.data)}](<{link}>)",
        _plain(label),
        rate,
        answers,
        _plain(figure.judge),
    )
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Returns text on one line without what Markdown would read as a table or markup."""
    one_line = " ".join(text.split())
    for sign in "\\`*_[]<>|":
        one_line = one_line.replace(sign, f"\\{sign}")
    return one_line
