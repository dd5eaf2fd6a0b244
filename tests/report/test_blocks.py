"""Blocks of a report as HTML and Markdown: escaping, alignment, captions, folding."""

from __future__ import annotations

from truing.report.blocks import (
    AnswerCard,
    AnswerCards,
    Cell,
    Figure,
    Grid,
    Table,
    Text,
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
        '<div class="scroll" tabindex="0" role="group" aria-label="What"><table><caption>What</caption><thead><tr><th scope="col">name</th>'
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
    assert block_html(figure) == (
        '<figure><figcaption>What</figcaption><div class="plot" tabindex="0" role="group" '
        'aria-label="What"><svg/></div></figure>'
    )
    assert block_markdown(figure) == "*What* a: 3 %"


def test_answers_have_a_word_and_a_shape() -> None:
    cards = AnswerCards(
        (
            AnswerCard("Safe?", "no", "no", "3 % [1, 5]", lines=(("Why:", "x < y"),)),
            AnswerCard("Safer?", "open", "not shown", "5 %", is_struck=True),
        )
    )
    html = block_html(cards)
    assert '<article class="card no"><h3>Safe?</h3><span class="badge no"><svg' in html
    assert '</svg>No</span><p class="figure">3 % [1, 5]</p><p><b>Why:</b> x &lt; y</p>' in html
    assert '</svg>Not shown</span><s class="figure">5 %</s></article>' in html
    assert block_markdown(cards) == (
        "**Safe? No.** 3 % [1, 5]. Why: x &lt; y.\n\n**Safer? Not shown.** ~~5 %~~"
    )


def test_a_struck_cell_refers_to_its_reason_below_the_table() -> None:
    grid = Grid(["name", "a", "b"])
    grid.add("x", Cell("1", "struck", why="it chose"), Cell("2", "struck", why="it <learned>"))
    grid.add("y", Cell("3", "struck", why="it chose"), "4")
    html = block_html(grid.table("What"))
    assert html.count("<s>") == 3
    assert '<td class="struck"><s>2</s><sup>2</sup></td>' in html
    assert html.endswith(
        '</div><p class="note"><sup>1</sup> Struck: it chose.</p>'
        '<p class="note"><sup>2</sup> Struck: it &lt;learned>.</p>'.replace("ned>.", "ned&gt;.")
    )
    assert block_markdown(grid.table("What")).splitlines()[-5:] == [
        "| x | ~~1~~ 1) | ~~2~~ 2) |",
        "| y | ~~3~~ 1) | 4 |",
        "",
        "> 1) Struck: it chose.",
        "> 2) Struck: it &lt;learned>.",
    ]


def test_the_rows_of_a_stacked_table_name_their_columns() -> None:
    grid = Grid(["", "a"])
    grid.add(Cell("harm", note="by judge"), Cell("not shown", "open"))
    html = block_html(grid.table("What", stacked=True))
    assert '<table class="stacked">' in html
    assert '<th scope="row">harm<small>by judge</small></th><td data-label="a">' in html
    assert '<span class="badge open">' in html
    assert block_markdown(grid.table()).splitlines()[-1] == "| harm (by judge) | not shown |"
