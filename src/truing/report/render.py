"""A story as one offline HTML file, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import jinja2
import msgspec

from truing.analysis.verdict_table import cached_verdict_tables
from truing.report.blocks import Section, block_html, block_markdown
from truing.report.report_data import ReportData
from truing.report.sections import SECTIONS


def sections(story: ReportData) -> list[Section]:
    """What this story has to say."""
    with cached_verdict_tables():
        return [made for make in SECTIONS if (made := make(story)) is not None]


def _sub(story: ReportData) -> str:
    n = sum(s.responses for v in story.variants for s in v.summaries.values())
    many = len(story.variants)
    parts = [
        story.created,
        f"{many} variant{'s' if many != 1 else ''}",
        f"{n:,} answers",
        ", ".join(story.data),
    ]
    if story.seconds is not None:
        parts.append(f"{story.seconds:.0f} s")
    return " · ".join(p for p in parts if p)


def html(story: ReportData, drawn: Sequence[Section] | None = None) -> str:
    """One file: no link, no font, no script from elsewhere. `drawn` are its sections, where they are at hand."""
    root = files("truing") / "report" / "templates"
    made = [
        {
            "id": s.id,
            "title": s.title,
            "lead": s.lead,
            "folded": not s.open_,
            "body": "\n".join(map(block_html, s.blocks)),
        }
        for s in drawn or sections(story)
    ]
    page = (root / "report.html.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True).from_string(page)
    return template.render(
        title=story.title,
        sub=_sub(story),
        sections=made,
        version=story.version,
        with_text=story.with_text,
        css=(root / "style.css").read_text(encoding="utf-8"),
        js=(root / "report.js").read_text(encoding="utf-8"),
    )


def markdown(story: ReportData, drawn: Sequence[Section] | None = None) -> str:
    """The same sections as text and tables."""
    parts = [f"# {story.title}", _sub(story)]
    for section in drawn or sections(story):
        parts += [
            f"## {section.title}",
            *([section.lead] if section.lead else []),
            *map(block_markdown, section.blocks),
        ]
    return "\n\n".join(p for p in parts if p) + "\n"


def write(story: ReportData, folder: Path, name: str = "report") -> dict[str, Path]:
    """Writes `name`.html, .md and .json; each to a temporary file first, then renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = sections(story)
    made = {
        "html": html(story, drawn).encode(),
        "md": markdown(story, drawn).encode(),
        "json": msgspec.json.format(msgspec.json.encode(story), indent=1) + b"\n",
    }
    out = {}
    for ending, data in made.items():
        path = folder / f"{name}.{ending}"
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(data)
        temporary.replace(path)
        out[ending] = path
    return out
