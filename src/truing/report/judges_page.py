"""The page that compares judges: the sections, and the HTML, Markdown and JSON files."""

from __future__ import annotations

from pathlib import Path

import msgspec

from truing.analysis.judge_comparison import JudgesComparison
from truing.core.private_files import create_folder, replace_file
from truing.report.blocks import Section, block_markdown
from truing.report.document import render_document
from truing.report.sections import judge_accuracy, judge_pairs, judge_provenance


def build_judge_sections(comparison: JudgesComparison) -> list[Section]:
    """Returns the sections of the page, without those that have nothing to show."""
    makers = (
        judge_accuracy.build_overview,
        judge_accuracy.build_fixed_rates,
        judge_accuracy.build_alarms,
        judge_pairs.build_differences,
        judge_pairs.build_agreement,
        judge_provenance.build_speed,
        judge_provenance.build_training,
        judge_provenance.build_mistakes,
        judge_provenance.build_method,
    )
    return [section for make in makers if (section := make(comparison)) is not None]


def _subtitle(comparison: JudgesComparison, created: str) -> str:
    n_judges, n_sets = len(comparison.judges), len(comparison.sets)
    rows = sum(compared.rows for compared in comparison.sets)
    return (
        f"{created} · {n_judges} judge{'s' if n_judges != 1 else ''} · "
        f"{n_sets} set{'s' if n_sets != 1 else ''} · {rows:,} rows"
    )


def render_judges_html(comparison: JudgesComparison, *, title: str, created: str) -> str:
    """Returns one HTML page without links, fonts or scripts from elsewhere."""
    sections = build_judge_sections(comparison)
    return render_document(
        title, _subtitle(comparison, created), sections, version=comparison.version
    )


def render_judges_markdown(comparison: JudgesComparison, *, title: str, created: str) -> str:
    """Returns the page as Markdown: the same sections as text and tables."""
    parts = [f"# {title}", _subtitle(comparison, created)]
    for section in build_judge_sections(comparison):
        parts += [f"## {section.title}", section.lead, *map(block_markdown, section.blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_judges_page(
    comparison: JudgesComparison, folder: Path, *, title: str, created: str
) -> dict[str, Path]:
    """Writes report.html, .md and .json, each whole or not at all; returns the paths by ending."""
    create_folder(folder)
    content = {"title": title, "created": created, **msgspec.to_builtins(comparison)}
    documents = {
        "html": render_judges_html(comparison, title=title, created=created).encode(),
        "md": render_judges_markdown(comparison, title=title, created=created).encode(),
        "json": msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n",
    }
    written = {}
    for ending, data in documents.items():
        written[ending] = folder / f"report.{ending}"
        replace_file(written[ending], data)
    return written
