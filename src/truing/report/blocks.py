"""The blocks of a report (text, tables, figures, tiles) and their rendering as HTML and
Markdown.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from msgspec import Struct, field


class Cell(Struct, frozen=True):
    """One cell of a table; `title` is shown on hover.

    `kind` is ``""``, good, bad, quiet, struck or sentence (long text).
    """

    text: str
    kind: str = ""
    title: str = ""
    sort: float | None = None


class Text(Struct, frozen=True, tag="text"):
    """A paragraph; `kind` is ``""``, note or warning."""

    text: str
    kind: str = ""


class Table(Struct, frozen=True, tag="table"):
    """Columns and rows; the `right` columns are right-aligned. A `folded` table opens on a
    click.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    right: frozenset[int] = frozenset()
    folded: bool = False


class Figure(Struct, frozen=True, tag="figure"):
    """An inline SVG; `alt` describes it in words and is its Markdown form."""

    svg: str
    caption: str
    alt: str


class Tile(Struct, frozen=True):
    """A large number with its interval below."""

    label: str
    value: str
    detail: str
    kind: str = ""


class Tiles(Struct, frozen=True, tag="tiles"):
    """A row of large numbers."""

    tiles: tuple[Tile, ...]
    title: str = ""


class Raw(Struct, frozen=True, tag="raw"):
    """HTML that is already escaped, with its Markdown form."""

    html: str
    markdown: str = ""


Block = Text | Table | Figure | Tiles | Raw


class Section(Struct, frozen=True):
    """A heading with its blocks; with `open_` false it is folded in HTML."""

    id: str
    title: str
    blocks: tuple[Block, ...]
    open_: bool = True
    lead: str = ""


class Grid(Struct):
    """Builds a table row by row."""

    columns: Sequence[str]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)

    def add(self, *cells: Cell | str) -> None:
        """Appends a row; a string becomes a plain cell."""
        self.rows.append(tuple(c if isinstance(c, Cell) else Cell(c) for c in cells))

    def table(self, caption: str = "", right: Sequence[int] = (), *, folded: bool = False) -> Table:
        """Returns the table."""
        return Table(tuple(self.columns), tuple(self.rows), caption, frozenset(right), folded)


def escape_html(text: str) -> str:
    """Returns HTML-escaped text, quotes included; control characters, which HTML forbids, become a
    box.
    """
    # html.escape() leaves control characters, which model output does contain, as they are.
    clean = "".join(c if c in "\n\t" or c >= " " else "\u25a1" for c in text)
    return html.escape(clean.replace("\x7f", "\u25a1"), quote=True)


def block_html(block: Block) -> str:
    """Returns a block as HTML."""
    if isinstance(block, Text):
        kind = f' class="{block.kind}"' if block.kind else ""
        return f"<p{kind}>{escape_html(block.text)}</p>"
    if isinstance(block, Figure):
        return f"<figure><figcaption>{escape_html(block.caption)}</figcaption>{block.svg}</figure>"
    if isinstance(block, Tiles):
        return _tiles_html(block)
    if isinstance(block, Raw):
        return block.html
    return _table_html(block)


def _tiles_html(block: Tiles) -> str:
    head = f'<div class="tiles-title">{escape_html(block.title)}</div>' if block.title else ""
    tiles = "".join(
        f'<div class="tile {t.kind}"><span class="label">{escape_html(t.label)}</span><span '
        f'class="value">{escape_html(t.value)}'
        f'</span><span class="detail">{escape_html(t.detail)}</span></div>'
        for t in block.tiles
    )
    return f'<div class="tiles-row">{head}<div class="tiles">{tiles}</div></div>'


def _table_html(block: Table) -> str:
    head = "".join(
        f'<th scope="col"{" class=right" if position in block.right else ""}>{escape_html(c)}</th>'
        for position, c in enumerate(block.columns)
    )
    rows = []
    for row in block.rows:
        cells = []
        for position, cell in enumerate(row):
            kinds = " ".join(
                k for k in (cell.kind, "right" if position in block.right else "") if k
            )
            shown = f' class="{kinds}"' if kinds else ""
            tip = f' title="{escape_html(cell.title)}"' if cell.title else ""
            cells.append(f"<td{shown}{tip}>{escape_html(cell.text)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    caption = (
        f"<caption>{escape_html(block.caption)}</caption>"
        if block.caption and not block.folded
        else ""
    )
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    scrolling_table = f'<div class="scroll"><table>{caption}{body}</table></div>'
    if not block.folded:
        return scrolling_table
    return (
        '<details class="table"><summary>Table: '
        f"{escape_html(block.caption)}</summary>{scrolling_table}</details>"
    )


def _escape_markdown(text: str) -> str:
    # Backslashes first, or the ones that escape the bars would be doubled; a line break would end
    # the table row.
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def block_markdown(block: Block) -> str:
    """Returns a block as Markdown."""
    if isinstance(block, Text):
        return ("> " if block.kind else "") + _escape_markdown(block.text)
    if isinstance(block, Figure):
        return f"*{_escape_markdown(block.caption)}* {_escape_markdown(block.alt)}"
    if isinstance(block, Tiles):
        lines = [
            (
                f"- {_escape_markdown(t.label)}: **{_escape_markdown(t.value)}** "
                f"{_escape_markdown(t.detail)}"
            ).rstrip()
            for t in block.tiles
        ]
        return "\n".join(
            [*([f"**{_escape_markdown(block.title)}**", ""] if block.title else []), *lines]
        )
    if isinstance(block, Raw):
        return block.markdown
    marks = ["---:" if position in block.right else "---" for position in range(len(block.columns))]
    lines = [f"| {' | '.join(map(_escape_markdown, block.columns))} |", f"| {' | '.join(marks)} |"]
    for row in block.rows:
        shown = [
            f"~~{_escape_markdown(c.text)}~~"
            if c.kind == "struck" and c.text
            else _escape_markdown(c.text)
            for c in row
        ]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(
        ([f"*{_escape_markdown(block.caption)}*", ""] if block.caption else []) + lines
    )
