"""The table of rows to read."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.report.rates import make_report, make_variant

from truing.report.blocks import Raw
from truing.report.report_data import RowView, Variant
from truing.report.sections.rows import (
    TEXT_BUDGET,
    RowData,
    build_section,
    collect_rows,
    has_mild_prompts,
)
from truing.runs.folder import DataRecord, Manifest

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


def test_a_row_refers_to_its_words() -> None:
    report = make_report(make_variant("a"), make_variant("b"), rows=(FLIP,))
    data = collect_rows(report)
    assert (data.variants, data.data, data.whys) == (["a", "b"], ["set"], ["flip"])
    assert (data.categories, data.outcomes, data.expects) == (
        ["Animal abuse"],
        ["harmful"],
        ["refuse"],
    )
    # Variant b has no such answer.
    assert data.rows == [RowData("<s0>", 1, 0, 0, 0, (0,), (0, -1))]


def test_rows_are_data_that_cannot_end_the_script_around_them() -> None:
    html = build_block(replace(TEXT, prompt="</script><img src=x>")).html
    assert "</script><img" not in html and "\\u003c/script\\u003e\\u003cimg" in html


def test_texts_beyond_the_budget_are_left_out_and_counted() -> None:
    long = replace(TEXT, texts={"a": "x" * (TEXT_BUDGET // 2)})
    report = make_report(make_variant("a"), rows=(long, long, long))
    data = collect_rows(report)
    assert [bool(row.prompt) for row in data.rows] == [True, False, False]
    assert data.texts_left_out == 2
    assert "The texts of 2 rows did not fit" in build_block(long, long, long).html


@pytest.mark.parametrize(
    ("specs", "attack", "expected"),
    [
        (["builtin:safety,half=report"], None, True),
        (["builtin:safety", "file:rows.jsonl"], None, False),
        (["file:rows.jsonl"], None, False),
        ([], None, False),
        (["builtin:safety"], "role-play", False),
    ],
)
def test_only_built_in_prompts_as_written_are_readable(
    specs: list[str], attack: str | None, expected: bool
) -> None:
    manifest = Manifest(data=[DataRecord(spec=spec) for spec in specs], plan={"attack": attack})
    variant = Variant(name="a", manifests={"set": manifest})
    report = make_report(variant, rows=(TEXT,))
    assert has_mild_prompts(report, "set") is expected
    assert collect_rows(report).readable == [expected]


def test_reasons_are_counted_and_offered_as_filter() -> None:
    block = build_block(FLIP, FLIP, TEXT, left_out=5)
    assert block.markdown == "Rows in the HTML report: 2 flip, 1 sample."
    assert '<option value="0">flip</option><option value="1">sample</option>' in block.html
    assert "5 more rows stand in the run folders." in block.html
