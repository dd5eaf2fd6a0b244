"""A report as one offline HTML file, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from truing.analysis.verdict_table import cached_verdict_tables
from truing.core.private_files import create_folder, replace_file
from truing.report.blocks import Section, block_markdown
from truing.report.document import render_document
from truing.report.report_data import ReportData
from truing.report.sections import SECTIONS

OPEN_SECTIONS = ("headline", "plane")
"""The sections that are the first page; all others are evidence, and open on a click."""


def build_sections(report: ReportData) -> list[Section]:
    """Returns the sections of the report, without those that have nothing to show."""
    with cached_verdict_tables():
        return [documents for make in SECTIONS if (documents := make(report)) is not None]


def _subtitle(report: ReportData) -> str:
    n = sum(s.responses for v in report.variants for s in v.summaries.values())
    variant_count = len(report.variants)
    facts = [
        report.created,
        f"{variant_count} variant{'s' if variant_count != 1 else ''}",
        f"{n:,} answers",
        ", ".join(report.data),
    ]
    if report.seconds is not None:
        facts.append(f"{report.seconds:.0f} s")
    return " · ".join(p for p in facts if p)


def render_html(report: ReportData, drawn: Sequence[Section] | None = None) -> str:
    """Returns the report as one HTML page without links, fonts or scripts from elsewhere.

    `drawn` are the sections, if they have been built already.
    """
    return render_document(
        report.title,
        _subtitle(report),
        drawn or build_sections(report),
        open_ids=OPEN_SECTIONS,
        variants=[variant.name for variant in report.variants],
        with_text=report.with_text,
        version=report.version,
    )


def render_markdown(report: ReportData, drawn: Sequence[Section] | None = None) -> str:
    """Returns the report as Markdown: the same sections as text and tables."""
    paragraphs = [f"# {report.title}", _subtitle(report)]
    for section in drawn or build_sections(report):
        paragraphs += [
            f"## {section.title}",
            *([section.lead] if section.lead else []),
            *map(block_markdown, section.blocks),
        ]
    return "\n\n".join(p for p in paragraphs if p) + "\n"


def write_report(report: ReportData, folder: Path, name: str = "report") -> dict[str, Path]:
    """Writes `name`.html, .md and .json, and returns their paths by ending.

    Each is written to a temporary file first, then renamed: a reader never sees half a report.
    """
    create_folder(folder)
    drawn = build_sections(report)
    documents = {
        "html": render_html(report, drawn).encode(),
        "md": render_markdown(report, drawn).encode(),
        "json": msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n",
    }
    written = {}
    for ending, data in documents.items():
        path = folder / f"{name}.{ending}"
        replace_file(path, data)
        written[ending] = path
    return written
