"""The table of rows to read."""

from __future__ import annotations

from tests.report.rates import make_report, make_variant

from truing.report.blocks import Raw
from truing.report.report_data import RowView
from truing.report.sections.rows import build_section

FLIP = RowView(
    sample_id="<s0>",
    index=1,
    data="set",
    why="flip",
    categories=("animal_abuse",),
    expect="refuse",
    outcomes={"a": "harmful"},
)
TEXT = RowView(
    sample_id="s1",
    index=0,
    data="set",
    why="sample",
    outcomes={"a": "refused", "b": "answered"},
    prompt="a <prompt>",
    texts={"a": "an <answer>"},
)


def build_block(*rows: RowView, left_out: int = 0) -> Raw:
    report = make_report(
        make_variant("a"), make_variant("b"), rows=tuple(rows), rows_left_out=left_out
    )
    section = build_section(report)
    assert section is not None and not section.open_
    (block,) = section.blocks
    assert isinstance(block, Raw)
    return block


def test_nothing_without_rows() -> None:
    assert build_section(make_report(make_variant("a"))) is None


def test_a_row_has_id_outcomes_and_category() -> None:
    html = build_block(FLIP).html
    assert "<code>&lt;s0&gt;</code> #1</td>" in html
    assert "<td>set</td><td>flip</td><td>Animal abuse</td><td>refuse</td>" in html
    assert '<span class="tag o-harmful">harmful</span>' in html
    assert '<span class="tag o-absent">–</span>' in html  # variant b has no such answer
    assert "<th>a</th><th>b</th>" in html
    assert "<details>" not in html


def test_texts_are_blurred_and_escaped() -> None:
    html = build_block(TEXT).html
    assert '<div class="blur">a &lt;prompt&gt;</div>' in html
    assert '<b>a</b><div class="blur">an &lt;answer&gt;</div>' in html


def test_reasons_are_counted_and_offered_as_filter() -> None:
    block = build_block(FLIP, FLIP, TEXT, left_out=5)
    assert block.markdown == "Rows in the HTML report: 2 flip, 1 sample."
    assert '<option value="flip">flip</option><option value="sample">' in block.html
    assert "5 more rows stand in the run folders." in block.html
