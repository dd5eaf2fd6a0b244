"""A whole report as HTML, Markdown and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from tests.report.rates import make_rate, make_report, make_variant

from truing.report.blocks import Section, Text
from truing.report.render import build_sections, render_html, render_markdown, write_report
from truing.report.report_data import RowView
from truing.report.rows import MAX_ROWS


def test_only_sections_with_content_are_built() -> None:
    report = make_report(make_variant("a", make_rate("harmful", 10, 100)))
    assert [s.id for s in build_sections(report)] == ["headline", "method"]


def test_sections_in_markdown() -> None:
    report = make_report(make_variant("a"), make_variant("b"), seconds=12.4)
    section = Section("x", "Heading", (Text("a paragraph"),), lead="what follows")
    assert render_markdown(report, [section]) == (
        "# Title\n\n2026-01-01 · 2 variants · 200 answers · set · 12 s\n\n"
        "## Heading\n\nwhat follows\n\na paragraph\n"
    )


def test_the_page_escapes_titles_and_loads_nothing() -> None:
    report = make_report(make_variant("a"), title="<script>alert(1)</script>")
    sections = [
        Section("open", "Open", (Text("shown"),)),
        Section("folded", "Folded", (Text("hidden"),), open_=False),
    ]
    html = render_html(report, sections)
    assert "<script>alert(1)" not in html and "&lt;script&gt;alert(1)" in html
    assert "1 variant · 100 answers" in html
    assert "<p>shown</p>" in html and "<p>hidden</p>" in html
    assert " src=" not in html and "<link" not in html and "@import" not in html


def test_a_page_with_all_rows_and_long_texts_stays_below_a_megabyte() -> None:
    variants = [make_variant(f"variant {k}", make_rate("harmful", 10, 100)) for k in range(8)]
    rows = [
        RowView(
            sample_id=f"{i:016x}",
            index=0,
            data="set",
            why="harmful",
            categories=("animal_abuse", "violence"),
            expect="refuse",
            outcomes={v.name: "harmful" for v in variants},
            prompt="p" * 1200,
            texts={v.name: "a<\u2028" * 400 for v in variants},
        )
        for i in range(MAX_ROWS)
    ]
    report = make_report(*variants, rows=tuple(rows), rows_left_out=10, with_text=True)
    assert len(render_html(report).encode()) < 1_000_000


def test_write_report_writes_three_files(tmp_path: Path) -> None:
    report = make_report(make_variant("a", make_rate("harmful", 10, 100)))
    paths = write_report(report, tmp_path / "new" / "folder", "name")
    assert {ending: path.name for ending, path in paths.items()} == {
        "html": "name.html",
        "md": "name.md",
        "json": "name.json",
    }
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == [
        "name.html",
        "name.json",
        "name.md",
    ]
    assert paths["md"].read_text(encoding="utf-8") == render_markdown(report)
    data = json.loads(paths["json"].read_bytes())
    assert data["variants"][0]["summaries"]["set"]["rates"][0]["events"] == 10
