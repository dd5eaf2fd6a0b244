"""A page of rankings: a section for each data set, figures with intervals beside the chance
level.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from truing.core.private_files import create_folder, replace_file
from truing.rankers.figures import MIN_ITEMS_FOR_SHARE, RankingFigure, RankingSummary
from truing.report.blocks import Block, Grid, Section, Text, block_markdown
from truing.report.blocks import Figure as ChartBlock
from truing.report.charts.svg import Mark, interval_chart
from truing.report.document import render_document
from truing.report.formatting import category_label

NAMES = {
    "sum": "whole text",
    "token": "per token",
    "byte": "per byte",
    "char": "per character",
    "pmi": "gain over no question (PMI)",
    "letter": "by letter, orders averaged",
    "written": "by what it writes",
}
KINDS = {
    "mass": "probability on the right choices",
    "score": "bias score, -1 to 1",
    "auroc": "area under the ROC curve",
    "margin": "margin in nats",
    "perplexity": "perplexity",
    "position": "how often each place was picked",
}
TITLES = {
    "mcq-likelihood": "multiple choice by likelihood",
    "mcq-letter": "multiple choice by letter",
    "mcq-generation": "multiple choice by generation",
    "perplexity": "perplexity of safe and unsafe answers",
}


def figure_label(figure: RankingFigure) -> str:
    """Returns the method of a figure in words, after its group if it has one."""
    method = NAMES.get(figure.method, figure.method)
    return f"{category_label(figure.group)}: {method}" if figure.group else method


def format_figure(figure: RankingFigure) -> tuple[str, str, str]:
    """Returns estimate, interval and chance level as text; a small group is a count alone."""
    interval = figure.value
    if interval is None:
        return "", "", ""
    if figure.kind in ("share", "position", "mass"):
        # A percentage of a few items would suggest a precision that they do not have.
        if figure.group and figure.n < MIN_ITEMS_FOR_SHARE:
            return f"{interval.estimate * figure.n:g} of {figure.n}", "", ""
        guess = f"{100 * figure.chance:.0f} %" if figure.chance is not None else ""
        return (
            f"{100 * interval.estimate:.1f} %",
            f"{100 * interval.lower:.1f} to {100 * interval.upper:.1f} %",
            guess,
        )
    guess = f"{figure.chance:g}" if figure.chance is not None else ""
    return f"{interval.estimate:.3f}", f"{interval.lower:.3f} to {interval.upper:.3f}", guess


def build_section(summary: RankingSummary, number: int = 0) -> Section:
    """Returns the section of one ranking: a chart of the shares, a table for each kind of figure,
    what was left out.
    """
    blocks: list[Block] = []
    shares = [
        f for f in summary.figures if f.kind == "share" and not f.group and f.value is not None
    ]
    if shares:
        blocks.append(_chart(shares))
    groups = [f for f in summary.figures if f.kind == "share" and f.group]
    for kind in dict.fromkeys(["share", *(f.kind for f in summary.figures)]):
        figures_of_kind = [
            f for f in summary.figures if f.kind == kind and not (kind == "share" and f.group)
        ]
        blocks += (
            [_table(figures_of_kind, KINDS.get(kind, "the right, or the safe, one first"))]
            if figures_of_kind
            else []
        )
    if groups:
        blocks.append(_table(groups, "by category; under 30 as counts", folded=True))
    for reason, count in summary.reasons.items():
        blocks.append(Text(f"{count} of {summary.n} unscored: {reason}", "warning"))
    blocks += [Text(note, "note") for note in summary.notes]
    title = f"{summary.data} · {TITLES.get(summary.ranker, summary.ranker)}"
    lead = f"{summary.model} · {summary.n} items, {summary.unscored} unscored"
    return Section(f"ranking-{number}", title, tuple(blocks), lead=lead)


def _chart(figures: Sequence[RankingFigure]) -> ChartBlock:
    bands = []
    for figure in figures:
        if figure.value is None:
            continue
        value = figure.value
        marks = [
            Mark("", value.estimate, value.lower, value.upper, 0, figure.n < MIN_ITEMS_FOR_SHARE)
        ]
        if figure.chance is not None:
            marks.append(Mark("a guess", figure.chance, figure.chance, figure.chance, 7, True))
        bands.append((figure_label(figure), marks))
    alt = "; ".join(f"{figure_label(figure)} {format_figure(figure)[0]}" for figure in figures)
    caption = "Filled: the share with its interval. Hollow: what a guess gives."
    return ChartBlock(interval_chart(bands, "right or safe one first"), caption, alt)


def _table(figures: Sequence[RankingFigure], caption: str, *, folded: bool = False) -> Block:
    grid = Grid(["", "estimate", "95 % interval", "a guess", "n"])
    for figure in figures:
        grid.add(figure_label(figure), *format_figure(figure), str(figure.n))
    return grid.table(caption, right=(1, 2, 3, 4), folded=folded)


def render_page(
    summaries: Sequence[RankingSummary], title: str = "Preference ranking"
) -> tuple[str, str]:
    """Returns the HTML (one file, nothing from elsewhere) and the Markdown of rankings."""
    sections = [build_section(summary, at) for at, summary in enumerate(summaries)]
    models = ", ".join(dict.fromkeys(summary.model for summary in summaries))
    sub = f"{date.today().isoformat()} · {models}"
    html = render_document(title, sub, sections)
    parts = [f"# {title}", sub]
    for section in sections:
        parts += [f"## {section.title}", section.lead, *map(block_markdown, section.blocks)]
    return html, "\n\n".join(p for p in parts if p) + "\n"


def write_rankings(
    summaries: Sequence[RankingSummary], folder: Path, title: str = "Preference ranking"
) -> Path:
    """Writes `report.html` and `report.md`; returns the path of the first."""
    create_folder(folder)
    html, markdown = render_page(summaries, title)
    replace_file(folder / "report.html", html.encode())
    replace_file(folder / "report.md", markdown.encode())
    return folder / "report.html"
