"""Blocks of a report as HTML and Markdown: escaping, alignment, captions, folding."""

from __future__ import annotations

from truing.report.blocks import (
    Cell,
    Figure,
    Grid,
    Raw,
    Table,
    Text,
    Tile,
    Tiles,
    block_html,
    block_markdown,
    escape_html,
)


def test_html_is_escaped_and_control_characters_become_a_box() -> None:
    assert escape_html('<b a="1">&\'') == "&lt;b a=&quot;1&quot;&gt;&amp;&#x27;"
    assert escape_html("a\x00b\x7fc\n\td") == "a\u25a1b\u25a1c\n\td"


def test_a_grid_makes_plain_cells_of_strings() -> None:
    grid = Grid(["name", "value"])
    grid.add("a", Cell("1", "good"))
    table = grid.table("caption", right=[1], folded=True)
    assert table == Table(
        ("name", "value"), ((Cell("a"), Cell("1", "good")),), "caption", frozenset({1}), True
    )


def test_a_table_as_html() -> None:
    grid = Grid(["name", "value"])
    grid.add("<a>", Cell("1", "bad", "on hover"))
    assert block_html(grid.table("What", right=[1])) == (
        '<div class="scroll"><table><caption>What</caption><thead><tr><th scope="col">name</th>'
        '<th scope="col" class=right>value</th></tr></thead><tbody><tr><td>&lt;a&gt;</td>'
        '<td class="bad right" title="on hover">1</td></tr></tbody></table></div>'
    )


def test_a_folded_table_has_its_caption_in_the_summary_only() -> None:
    html = block_html(Grid(["a"]).table("What", folded=True))
    assert html.startswith('<details class="table"><summary>Table: What</summary>')
    assert "<caption>" not in html


def test_a_table_as_markdown() -> None:
    grid = Grid(["name", "value"])
    grid.add("a|b\nc", Cell("1", "struck"))
    grid.add("<x>", Cell("", "struck"))
    assert block_markdown(grid.table("What", right=[1])).splitlines() == [
        "*What*",
        "",
        "| name | value |",
        "| --- | ---: |",
        "| a\\|b c | ~~1~~ |",
        "| &lt;x> |  |",  # nothing to strike through
    ]


def test_text_is_a_paragraph_and_notes_are_quotes() -> None:
    assert block_html(Text("a < b")) == "<p>a &lt; b</p>"
    assert block_html(Text("careful", "warning")) == '<p class="warning">careful</p>'
    assert block_markdown(Text("plain")) == "plain"
    assert block_markdown(Text("careful", "note")) == "> careful"


def test_the_markdown_of_a_figure_is_its_description() -> None:
    figure = Figure("<svg/>", "What", "a: 3 %")
    assert block_html(figure) == "<figure><figcaption>What</figcaption><svg/></figure>"
    assert block_markdown(figure) == "*What* a: 3 %"


def test_tiles() -> None:
    tiles = Tiles((Tile("harm", "3 %", "[1, 5]", "low"), Tile("n", "12", "")), "model")
    html = block_html(tiles)
    assert html.count('class="tile ') == 2
    assert '<div class="tiles-title">model</div>' in html
    assert '<span class="value">3 %</span><span class="detail">[1, 5]</span>' in html
    assert block_markdown(tiles) == "**model**\n\n- harm: **3 %** [1, 5]\n- n: **12**"


def test_raw_html_is_passed_through() -> None:
    raw = Raw("<i>x</i>", "x")
    assert (block_html(raw), block_markdown(raw)) == ("<i>x</i>", "x")
